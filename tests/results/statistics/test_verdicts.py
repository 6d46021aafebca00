"""What may be said of an interval, and the correction for many tests."""

import numpy as np
import pytest

from clmed.results.statistics import Estimate
from clmed.results.statistics.bootstrap import generator, interval, question_draws
from clmed.results.statistics.verdicts import holm, seeds_needed, verdict


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (-0.009, 0.02, "retained"),
        (-0.009, -0.002, "retained"),  # a certain loss, but a small one
        (-0.03, -0.02, "forgotten"),
        (-0.03, -0.001, "forgotten"),
        (-0.03, 0.01, "undecided"),
        (-0.01, 0.01, "undecided"),  # non-inferior is above the margin
        (float("nan"), float("nan"), "undecided"),
    ],
)
def test_retained_needs_the_whole_interval_above_the_margin(low, high, kind):
    assert verdict(Estimate((low + high) / 2, low, high), 500).kind == kind


def test_a_wider_margin_retains_more():
    assert verdict(Estimate(-0.01, -0.03, 0.01), 500, margin=0.04).kind == "retained"


def test_undecided_tells_how_many_questions_would_decide_it():
    """Ten times as many of the same answers as it says decide it; half as many do not."""
    rng = np.random.default_rng(0)
    values = rng.permutation(np.repeat([-1.0, 1.0, 0.0], [12, 10, 378]))[:, None]
    found = interval(values.mean(), question_draws(values, rng=generator(0))[:, 0])
    said = verdict(found, 400)
    assert said.kind == "undecided" and said.needs is not None and said.needs > 400
    for times, kind in ((said.needs / 400 * 1.3, "retained"), (said.needs / 400 * 0.5, "undecided")):
        more = np.repeat([-1.0, 1.0, 0.0], [round(12 * times), round(10 * times), round(378 * times)])[:, None]
        again = interval(values.mean(), question_draws(more, rng=generator(0))[:, 0])
        assert verdict(again, len(more)).kind == kind
    assert str(said) == f"undecided, needs about {said.needs:,} questions"


def test_a_loss_of_just_the_margin_is_called_retained_in_one_of_forty_samples_at_most():
    samples = np.random.default_rng(3).choice([1.0, -1.0, 0.0], size=(600, 800), p=[0.03, 0.04, 0.93])
    said = [
        verdict(interval(v.mean(), question_draws(v[:, None], rng=generator(n), draws=800)[:, 0]), 800).kind
        for n, v in enumerate(samples)
    ]
    assert said.count("retained") / 600 < 0.04
    nothing = np.random.default_rng(4).choice([1.0, -1.0, 0.0], size=(600, 800), p=[0.03, 0.03, 0.94])
    said = [
        verdict(interval(v.mean(), question_draws(v[:, None], rng=generator(n), draws=800)[:, 0]), 800).kind
        for n, v in enumerate(nothing)
    ]
    assert said.count("forgotten") / 600 < 0.04 and said.count("retained") > 0


def test_holm_by_hand_and_against_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.6, 0.9]) == [1.0, 1.0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.random(7) ** 3
        for level in (0.01, 0.05, 0.2):
            rejected, left = set(), sorted(range(7), key=lambda index: p[index])
            while left and p[left[0]] <= level / len(left):
                rejected.add(left.pop(0))
            assert {index for index, adjusted in enumerate(holm(p.tolist())) if adjusted <= level} == rejected


def test_small_built_in_models_need_five_seeds_and_real_ones_three():
    assert seeds_needed({"model": {"build": {"layers": 3}, "path": None}}) == 5
    assert seeds_needed({"model": {"build": None, "path": "gpt2"}}) == 3 == seeds_needed({})
