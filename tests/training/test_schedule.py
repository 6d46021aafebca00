"""Learning rates against closed forms, at every step."""

import math

import pytest
from pydantic import ValidationError

from clmed.config import OptimizerConfig
from clmed.training.schedule import learning_rate


def rates(steps=100, **settings):
    optimizer = OptimizerConfig(lr=2.0, **settings)
    return [learning_rate(step, steps, optimizer) for step in range(steps)]


def test_warms_up_linearly_and_peaks_once():
    found = rates(warmup=0.1)
    assert found[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(found) == 2.0


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 1.1), ("linear", 1.1), ("constant", 2.0)])
def test_decays_to_the_final_share(decay, middle):
    found = rates(steps=101, warmup=0.0, decay=decay, final=0.1)
    assert found[0] == 2.0
    assert found[50] == pytest.approx(middle)
    assert found[-1] == pytest.approx(2.0 if decay == "constant" else 0.2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_experiences_have_a_learning_rate(steps):
    assert all(0 < rate <= 2.0 for rate in rates(steps=steps, warmup=0.5))


def cosine(done):
    return (1 + math.cos(math.pi * done)) / 2


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        # step -> share of lr, over 100 steps: 10 of warm-up, the last step is 99
        ({"decay": "cosine"}, lambda t: 0.1 + 0.9 * cosine((t - 10) / 89)),
        ({"decay": "linear"}, lambda t: 1 - 0.9 * (t - 10) / 89),
        ({"decay": "constant"}, lambda t: 1.0),
        ({"decay": "wsd", "anneal": 0.2}, lambda t: 1.0 if t <= 79 else 1 - 0.9 * (t - 79) / 20),
        ({"decay": "wsd", "anneal": 0.0}, lambda t: 1.0),
        (
            {"decay": "infinite", "cooldown": 0.3, "level": 0.5, "anneal": 0.2},
            lambda t: 0.5 + 0.5 * cosine((t - 10) / 30) if t < 40 else 0.5 * (0.1 / 0.5) ** max(0, (t - 79) / 20),
        ),
        ({"decay": "infinite", "cooldown": 0.0, "level": 0.5, "anneal": 0.0}, lambda t: 0.5),
    ],
)
def test_every_step_of_every_schedule(settings, shape):
    found = rates(warmup=0.1, final=0.1, **settings)
    expected = [2.0 * ((t + 1) / 10 if t < 10 else shape(t)) for t in range(100)]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("decay", ["wsd", "infinite"])
def test_short_experiences_end_annealed(steps, decay):
    found = rates(steps=steps, decay=decay, warmup=0.0, final=0.2)
    assert all(0 < rate <= 2.0 for rate in found)
    assert steps < 3 or found[-1] == pytest.approx(0.4)


def test_an_infinite_schedule_is_unbroken_across_experiences():
    """Warm-up and cooldown once, then the level, and the annealing in the last experience alone."""
    stay = {"warmup": 0.0, "cooldown": 0.0}
    first = rates(decay="infinite", warmup=0.1, cooldown=0.3, level=0.5, anneal=0.0)
    middle = rates(decay="infinite", level=0.5, anneal=0.0, **stay)
    last = rates(decay="infinite", level=0.5, anneal=0.1, **stay)
    assert first[-1] == middle[0] == middle[-1] == last[0] == 1.0
    assert last[-1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"anneal": 0.2}, "anneal is for decay: wsd and infinite"),
        ({"decay": "wsd", "level": 0.3}, "level is for decay: infinite"),
        ({"decay": "infinite", "cooldown": 0.9, "anneal": 0.2}, "more than all steps"),
        ({"decay": "infinite", "final": 0.0}, "must be above 0 and at most level"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        OptimizerConfig(lr=1.0, **settings)
