"""Fronts against brute force: the definition, pair by pair."""

import itertools
import math
import random

import pytest
from lifelike import lifelike_rows

from clmed.results.fronts import BASE, ends, front, is_beyond, is_trivial, pareto, trivial_front
from clmed.results.metrics import gain, retention


def dominates(one, other) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def test_pareto_is_its_definition():
    noise = random.Random(0)
    for _ in range(200):
        # Few different values make ties; some are NaN.
        count = 2 * noise.randint(0, 12)
        values = [math.nan if noise.random() < 0.1 else noise.randint(-4, 4) / 8 for _ in range(count)]
        points = list(zip(values[::2], values[1::2], strict=True))
        whole = [point for point in points if not any(map(math.isnan, point))]
        expected = [point in whole and not any(dominates(other, point) for other in whole) for point in points]
        assert pareto(values[::2], values[1::2]) == expected

        line = front(points)
        assert line == sorted({point for point, on in zip(points, expected, strict=True) if on})
        assert [y for _, y in line] == sorted((y for _, y in line), reverse=True)
        # A front beats exactly what its points beat.
        for point in itertools.product([x / 8 for x in range(-5, 6)], repeat=2):
            assert is_beyond(point, line) == (not any(other == point or dominates(other, point) for other in whole))


def test_pareto_of_many_points_is_quick_and_of_none_empty():
    noise = random.Random(0)
    points = [(noise.random(), noise.random()) for _ in range(20_000)]
    on = pareto([x for x, _ in points], [y for _, y in points])
    assert on[max(range(len(points)), key=lambda i: points[i])] and 0 < sum(on) < 100
    assert pareto([], []) == []
    with pytest.raises(ValueError):
        pareto([1.0], [])


def test_infinite_losses_are_points_like_others():
    assert pareto([1, 0, 1], [-math.inf, 0, -math.inf]) == [True, True, True]
    assert pareto([1, 1], [-math.inf, -1]) == [False, True]


def test_the_base_model_belongs_to_the_trivial_front():
    assert trivial_front([]) == [BASE]
    naive, low = (0.3, -0.2), (0.1, -0.02)
    line = trivial_front([naive, low, (0.05, -0.1)])
    assert line == [BASE, low, naive]
    assert is_beyond((0.2, -0.1), line) and is_beyond((0.01, 0.0), line)
    assert not is_beyond((0.0, -0.01), line) and not is_beyond(low, line) and not is_beyond((math.nan, 1.0), line)


def test_a_run_without_a_method_is_trivial():
    for config in ({}, {"strategy": None}, {"strategy": {"naive": {}}}, {"strategy": {"average": {"alpha": 0.5}}}):
        assert is_trivial(config)
    assert not is_trivial({"strategy": {"replay": {}, "average": {}}})


def test_the_ends_of_a_run_and_of_its_variants():
    rows = lifelike_rows(seed=1)
    [end] = ends(rows)
    assert end == (gain(rows), retention(rows))
    halves = []
    for point in (3, 4):
        for row in (row for row in rows if row["point"] == point):
            before = next(r for r in rows if r["point"] == 0 and r["benchmark"] == row["benchmark"])["score"]
            if row["category"] == "all":
                halves.append({**row, "alpha": 0.5, "score": (row["score"] + before) / 2})
    assert ends(rows, halves) == [end, pytest.approx((end[0] / 2, end[1] / 2))]
    only_gain = [row for row in rows if row["role"] == "gain"]
    assert math.isnan(ends(only_gain)[0][1])
