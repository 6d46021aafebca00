"""Response surfaces: a known one is found, and its intervals hold what they promise."""

import itertools

import numpy as np
import pytest

from clmed.errors import UserError
from clmed.results.surface import Factor, Surface, best, region

TOKENS = Factor(name="tokens", values=(125e3, 250e3, 500e3))
RATIO = Factor(name="ratio", values=(0.0, 0.1, 0.25))
SETTINGS = np.array(list(itertools.product(TOKENS.values, RATIO.values)))
# 1, tokens, ratio, tokens², tokens × ratio, ratio²
TRUE = np.array([0.4, 0.2, -0.1, -0.15, 0.05, -0.3])


def values(coefficients: np.ndarray, settings: np.ndarray = SETTINGS) -> np.ndarray:
    """By hand: tokens enter by their logarithm (500k is four times 125k), the ratio as it is."""
    z = np.log2(settings[:, 0] / 250e3)
    r = settings[:, 1] / 0.125 - 1
    return coefficients @ np.stack([np.ones_like(z), z, r, z * z, z * r, r * r])


def test_a_known_surface_is_found() -> None:
    surface = Surface.fit([TOKENS, RATIO], SETTINGS, np.stack([values(TRUE)] * 2))
    assert np.allclose(surface.coefficients.mean, TRUE) and surface.misfit < 1e-12 and surface.explained > 1 - 1e-9
    assert [surface.term_name(term) for term in surface.terms] == [
        "1", "tokens", "ratio", "tokens²", "tokens × ratio", "ratio²"
    ]  # fmt: skip
    elsewhere = np.array([[180e3, 0.2], [400e3, 0.03]])
    assert np.allclose(surface.at(elsewhere).mean, values(TRUE, elsewhere))


def test_the_best_setting_is_where_the_derivatives_vanish() -> None:
    surface = Surface.fit([TOKENS, RATIO], SETTINGS, np.stack([values(TRUE), values(TRUE)]))
    z, r = np.linalg.solve([[-0.3, 0.05], [0.05, -0.6]], [-0.2, 0.1])
    found = best([surface])
    # to a step of the grid that is searched
    assert abs(np.log2(found.setting[0] / 250e3) - z) <= 0.05 and abs(found.setting[1] / 0.125 - 1 - r) <= 0.05
    assert (found.by_seed == found.setting).all()
    whole = region([TOKENS, RATIO])
    assert surface.at(whole).mean.max() == pytest.approx(surface.at(found.setting[None]).mean[0])


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Seeds differ in whole surfaces (what their runs share) and in each run; 95 % within three standard errors."""
    random, held = np.random.default_rng(0), []
    for _ in range(600):
        shared = TRUE + random.normal(0, 0.05, (4, 6))
        measured = np.stack([values(own) for own in shared]) + random.normal(0, 0.02, (4, 9))
        surface = Surface.fit([TOKENS, RATIO], SETTINGS, measured)
        there = surface.at(SETTINGS[[0, 4]])
        truth = [*TRUE, *values(TRUE)[[0, 4]]]
        low = [*surface.coefficients.low, *there.low]
        high = [*surface.coefficients.high, *there.high]
        held.append((np.array(low) <= truth) & (truth <= np.array(high)))
    rates = np.mean(held, axis=0)
    assert (abs(rates - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 600)).all(), rates


def test_what_is_no_quadratic_is_told() -> None:
    cubic = np.log2(SETTINGS[:, 0] / 250e3) * (SETTINGS[:, 1] / 0.125 - 1) ** 2
    surface = Surface.fit([TOKENS, RATIO], SETTINGS, np.stack([cubic, cubic]))
    assert surface.misfit > 0.3 and surface.explained < 0.9


def test_factors() -> None:
    assert TOKENS.logarithmic and not RATIO.logarithmic
    assert np.allclose(TOKENS.coded(np.array(TOKENS.values)), [-1, 0, 1])
    assert np.allclose(RATIO.coded(np.array([0, 0.125, 0.25])), [-1, 0, 1])
    assert not Factor(name="narrow", values=(1.0, 3.9)).logarithmic
    two = Factor(name="two", values=(0.0, 1.0))
    settings = np.array(list(itertools.product(TOKENS.values, two.values)))
    terms = Surface.fit([TOKENS, two], settings, np.zeros((2, 6))).terms
    assert terms == ((), (0,), (1,), (0, 0), (0, 1))


@pytest.mark.parametrize(
    ("settings", "seeds", "words"),
    [
        (SETTINGS, 1, "two seeds at least"),
        (SETTINGS[[0, 1, 2, 3, 6]], 3, "do not tell the 6 terms"),
        (SETTINGS[[0, 4, 8, 0, 4, 8, 0]], 3, "do not tell the 6 terms"),
    ],
)
def test_runs_that_tell_no_surface(settings: np.ndarray, seeds: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Surface.fit([TOKENS, RATIO], settings, np.zeros((seeds, len(settings))))
