"""Label placement and the axis of tokens."""

import itertools
import random

import numpy as np
import pytest
from scipy.optimize import minimize

from clmed.results.plots.axis import TokenAxis, spread
from clmed.results.plots.streams import by_panel, shared


def test_labels_that_have_room_stay_where_they_are():
    assert spread([0.8, 0.1, 0.5], [0.1, 0.1, 0.1], 0, 1) == pytest.approx([0.8, 0.1, 0.5])


def test_two_labels_at_one_place_part_evenly():
    assert spread([0.5, 0.5], [0.1, 0.3], 0, 1) == pytest.approx([0.4, 0.6])


def test_labels_that_do_not_fit_start_at_the_low_end():
    assert spread([0.9, 0.9], [0.8, 0.8], 0, 1) == pytest.approx([0.4, 1.2])
    assert spread([], [], 0, 1) == []


@pytest.mark.parametrize("seed", range(5))
def test_labels_neither_overlap_nor_leave_and_are_as_near_as_can_be(seed):
    rng = random.Random(seed)
    wanted, sizes = [rng.random() for _ in range(7)], [rng.uniform(0.05, 0.15) for _ in range(7)]
    placed = np.array(spread(wanted, sizes, 0, 1))
    order = np.argsort(wanted)
    ordered_sizes = np.array(sizes)[order]
    needed = (ordered_sizes[1:] + ordered_sizes[:-1]) / 2
    constraints = [
        {"type": "ineq", "fun": lambda x: np.diff(x) - needed},
        {"type": "ineq", "fun": lambda x: x[0] - ordered_sizes[0] / 2},
        {"type": "ineq", "fun": lambda x: 1 - x[-1] - ordered_sizes[-1] / 2},
    ]
    target = np.array(wanted)[order]
    best = minimize(lambda x: ((x - target) ** 2).sum(), placed[order], constraints=constraints, method="SLSQP")
    assert all(constraint["fun"](placed[order]).min() > -1e-9 for constraint in constraints)
    assert ((placed[order] - target) ** 2).sum() == pytest.approx(best.fun, abs=1e-6)


def test_experiences_of_like_size_share_one_linear_scale():
    axis = TokenAxis(ends=(400, 520))
    assert not axis.stretched
    middle = (axis.fraction(0) + axis.fraction(520)) / 2
    assert axis.fraction(260) == pytest.approx(middle)
    assert axis.boundaries == [400]


def test_a_short_experience_gets_a_visible_part_of_the_axis():
    axis = TokenAxis(ends=(2_250_000_000, 2_260_000_000))
    assert axis.stretched
    assert axis.fraction(2_260_000_000) - axis.fraction(2_250_000_000) > 0.12
    places = [axis.fraction(tokens) for tokens in axis.ticks()]
    assert all(b > a for a, b in itertools.pairwise(places))
    assert {0, 2_250_000_000, 2_260_000_000} <= set(axis.ticks())


def test_a_model_that_was_not_trained_has_an_axis():
    axis = TokenAxis(ends=(0, 0))
    assert axis.boundaries == [] and axis.fraction(0) < axis.fraction(1)


def test_an_experience_has_one_end_however_far_the_last_steps_overshoot():
    law = {"statutes": 24_600, "questions": 34_800}, {"statutes": 26_600, "questions": 35_100}
    assert shared(law) == {"statutes": 26_600, "questions": 35_100}
    assert shared([*law, {"statutes": 9_000}, {}]) == shared(law)  # on their way
    assert shared([*law, {"statutes": 0, "questions": 0}]) == shared(law)  # never trained
    joint = {"statutes+questions": 35_200}
    assert shared([*law, joint]) == {"statutes": 26_600, "questions": 35_200}
    assert shared([joint, joint]) == joint
    assert shared([{"statutes": 0, "questions": 0}]) == {}  # two names would be at one place


@pytest.mark.parametrize(
    "others",
    [
        {"doctors": 24_600, "exam": 34_800},
        {"questions": 10_000},
        {"statutes": 10_000, "questions": 34_800},  # left where the others' first half is
        {"statutes": 40_000},  # still there where the others have ended
    ],
)
def test_other_experiences_are_not_shared(others):
    stream = {"statutes": 24_600, "questions": 34_800}
    assert shared([stream, others]) == {}
    assert by_panel([[stream], [stream, others], []])[0] == stream
    assert list(by_panel([[stream], [stream, others], []])[1]) == [""]
