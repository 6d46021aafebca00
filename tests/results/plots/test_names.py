"""Names in the plane of gain and retention, however many points there are and wherever they lie."""

import numpy as np
import pytest

from clmed.results.plots.names import HEIGHTS
from clmed.results.plots.plane import Spot, draw_spots
from clmed.results.plots.style import BOTTOM


def drawn(points, between=()):
    """The names that are written, what is said of them, and the height of the plane's axes in inches."""
    spots = [Spot(label=f"run-{number}", seeds=(point,), trivial=False) for number, point in enumerate(points)]
    figure = draw_spots(spots, between)
    (axes,) = figure.axes
    height = figure.get_size_inches()[1] * axes.get_position().height
    assert figure.get_size_inches()[1] * axes.get_position().y0 > BOTTOM
    return {text.get_text() for text in axes.texts}, axes.get_xlabel(), height


@pytest.mark.parametrize("count", [2, 4, 5, 40])
def test_points_that_cannot_be_told_apart_share_a_name(count):
    names, told, _ = drawn([(10.0 + number / 1e6, -5.0) for number in range(count)])
    shown = [f"run-{number}" for number in range(count if count <= 4 else 3)]
    assert names == {"base", "\n".join([*shown, *([f"and {count - 3} more"] if count > 4 else [])])}
    assert told == "gain (points of accuracy)"


def test_a_run_that_changed_nothing_shares_its_place_with_the_base():
    assert drawn([(0.0, 0.0), (0.001, 0.0), (5.0, -3.0)])[0] == {"run-0\nrun-1", "run-2"}


def test_of_very_many_those_on_the_front_are_named():
    noise = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in noise.normal((10, -5), (3, 2), (300, 2))]
    names, told, height = drawn(points)
    best = {f"run-{at}" for at, (x, y) in enumerate(points) if not any(a > x and b > y for a, b in [*points, (0, 0)])}
    assert names == best | {"base"} and told.endswith("\nnamed: those on the Pareto front")
    assert height <= HEIGHTS[-1] + 1e-9
