"""Fronts in the plane of gain and retention: what no other run beats, and what can be had without a method.

The *trivial front* is that of naive training at several learning rates, stopped early, or averaged with the base
(experiments/trivial/), and of the base model itself, which gains and loses nothing. A method helps only beyond it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clmed.results.metrics import Rows, gain, last_point, retention

Point = tuple[float, float]  # gain, retention: both are better when larger

BASE: Point = (0.0, 0.0)
TRIVIAL = frozenset({"naive", "average", "frozen"})


def pareto(gain: Sequence[float], retention: Sequence[float]) -> list[bool]:
    """Whether each point is on the Pareto front: no other is as good in both and better in one.

    Equal points are on it together. A point with a NaN is not on it and keeps no other from it.
    """
    points = list(zip(gain, retention, strict=True))
    on_front = [False] * len(points)
    last: Point | None = None
    # With falling gain, and of equal gains the best retention first, a point is on the front if it retains more than
    # the last one that was.
    for index in sorted((i for i, point in enumerate(points) if known(point)), key=lambda i: points[i], reverse=True):
        if last is None or points[index][1] > last[1] or points[index] == last:
            on_front[index], last = True, points[index]
    return on_front


def front(points: Iterable[Point]) -> list[Point]:
    """The points on the Pareto front, each once, by rising gain (so by falling retention)."""
    every = list(points)
    keep = pareto([x for x, _ in every], [y for _, y in every])
    return sorted({point for point, on in zip(every, keep, strict=True) if on})


def trivial_front(points: Iterable[Point]) -> list[Point]:
    """The front of trivial runs' points and the base model."""
    return front([*points, BASE])


def is_beyond(point: Point, front: Iterable[Point]) -> bool:
    """Whether no point of the front is at least as good in both; a point with a NaN is not beyond."""
    return known(point) and not any(x >= point[0] and y >= point[1] for x, y in front)


def is_trivial(config: Mapping[str, Any]) -> bool:
    """Whether a run of this configuration uses no method: naive, average or frozen, at any learning rate."""
    return set(config.get("strategy") or {}) <= TRIVIAL


def ends(results: Rows, variants: Rows = ()) -> list[Point]:
    """(gain, retention) at the last point of a run, and of the variants that were measured there beside it.

    results, variants: the rows of results.jsonl and of variants.jsonl (as `average` with `trace` writes them). A gain
    or retention that no benchmark tells is NaN. Shares, not percent.
    """
    found = [_end(results)]
    alphas = dict.fromkeys(row["alpha"] for row in variants if "alpha" in row)
    last, base = last_point(results), [row for row in results if row["point"] == 0]
    for alpha in alphas:
        own = [row for row in variants if row.get("alpha") == alpha and row["point"] == last]
        if own:
            found.append(_end([*base, *own]))
    return found


def known(point: Point) -> bool:
    """Whether neither of the two is NaN."""
    return not any(map(math.isnan, point))


def _end(rows: Rows) -> Point:
    values = (gain(rows), retention(rows))
    return tuple(math.nan if value is None else value for value in values)  # type: ignore[return-value]
