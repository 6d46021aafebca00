"""Learning rates at the points that define a schedule."""

import pytest

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
