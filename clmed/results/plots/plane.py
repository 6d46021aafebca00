"""The stability-plasticity plane: each method's gain and retention at the end, in points of accuracy.

Up and to the right is better. The shaded part is what can be had without a method: the trivial front (naive training at
any rate or length, averages with the base, the base itself) and all below it; a method helps only beyond. The stepped
line is the Pareto front of everything shown. Over seeds: the mean, its 95 % interval from three seeds on, and the seeds
as small dots.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clmed.results.comparison import averages
from clmed.results.fronts import BASE, Point, ends, front, is_beyond, is_trivial, known, trivial_front
from clmed.results.groups import Group
from clmed.results.plots.names import names, write_names
from clmed.results.plots.runs import interval, label
from clmed.results.plots.style import COLOURS, GREY, new_figure, tell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 5.0  # points: a smaller range would magnify noise
BLUE, ORANGE = COLOURS[:2]
STYLES: dict[str, dict[str, Any]] = {
    "beyond the trivial front": {"marker": "o", "color": BLUE, "markerfacecolor": BLUE},
    "not beyond it": {"marker": "^", "color": ORANGE, "markerfacecolor": "white"},
    "without a method": {"marker": "s", "color": GREY, "markerfacecolor": "white"},
}
BEYOND, WITHIN, TRIVIAL = STYLES


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A method in the plane: its seeds (gain, retention) in points of accuracy."""

    label: str
    seeds: tuple[Point, ...]
    trivial: bool

    @property
    def mean(self) -> Point:
        x, y = np.mean(self.seeds, axis=0)
        return float(x), float(y)


def missing(grouped: Sequence[Group]) -> str:
    """Why there is nothing to draw, or nothing."""
    if len(spots(grouped)) >= 2:
        return ""
    return (
        "The plane of gain and retention compares two methods or more: give several finished runs of different names, "
        "with accuracies under both `gain` and `retention`"
    )


def spots(grouped: Sequence[Group]) -> list[Spot]:
    """Every group that has been trained and has a gain and a retention: the means that `clmed compare` shows."""
    found, _ = averages.ends(tuple(grouped))
    result = []
    for group in grouped:
        seeds = tuple(_percent(point) for point in found.get(group.label, []) if known(point))
        if seeds:
            trivial = all(is_trivial(run.config) for run in group.runs)
            result.append(Spot(label=label(group).replace("\n(", " ("), seeds=seeds, trivial=trivial))
    return result


def with_base(grouped: Sequence[Group]) -> list[Point]:
    """Averages with the base that trivial runs measured beside their own end: means over the seeds."""
    _, names = averages.ends(tuple(grouped))
    result: list[Point] = []
    for group in grouped:
        if all(is_trivial(run.config) for run in group.runs):
            seeds = [
                ends(*([row for row in rows if row["benchmark"] in names] for rows in (run.rows, run.variants)))[1:]
                for run in group.counted
            ]
            for same in zip(*seeds, strict=False):
                x, y = np.mean(same, axis=0)
                result.append(_percent((float(x), float(y))))
    return [point for point in result if known(point)]


def draw(grouped: Sequence[Group]) -> Figure:
    """One plane, as high as its labels need."""
    return draw_spots(spots(grouped), with_base(grouped))


def draw_spots(found: Sequence[Spot], between: Sequence[Point]) -> Figure:
    """The same of methods whose points are known; between: averages with the base, in points of accuracy."""
    trivial = trivial_front([*(spot.mean for spot in found if spot.trivial), *between])
    with new_figure(spot.label for spot in found) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        bars = [bar for spot in found for bar in _bars(spot)]
        _limit(axes, [*(seed for spot in found for seed in spot.seeds), *itertools.chain(*bars), *between, BASE])
        kinds = [_kind(spot, trivial) for spot in found]
        low = _draw_legend(figure, [kind for kind in STYLES if kind in kinds], bool(between))
        named = [(spot.label, spot.mean) for spot in found]
        if BASE not in (point for _, point in named):  # `frozen` is there
            named.append(("base", BASE))
        pareto = front([*(point for _, point in named), *between])
        lines = [*_draw_fronts(axes, trivial, pareto), *bars]
        told = write_names(
            figure, axes, names(axes, named), front=[*pareto, BASE], low=low, others=between, lines=lines
        )
        axes.plot(*BASE, marker="+", color="black", markersize=6, zorder=4)
        if between:
            axes.plot(*zip(*between, strict=True), "s", markersize=2, color=GREY, zorder=3)
        for spot, kind in zip(found, kinds, strict=True):
            _draw_spot(axes, spot, STYLES[kind])
        axes.set_xlabel("\n".join(filter(None, ["gain (points of accuracy)", told])))
        axes.set_ylabel("retention (points of accuracy)")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _percent(point: Point) -> Point:
    return 100 * point[0], 100 * point[1]


def _kind(spot: Spot, trivial: Sequence[Point]) -> str:
    return TRIVIAL if spot.trivial else BEYOND if is_beyond(spot.mean, trivial) else WITHIN


def _bounds(spot: Spot) -> list[tuple[float, float]]:
    """Low and high of gain and of retention; the mean itself with fewer than three seeds."""
    columns = zip(*spot.seeds, strict=True)
    return [interval(values) or (mean, mean) for values, mean in zip(columns, spot.mean, strict=True)]


def _bars(spot: Spot) -> list[list[Point]]:
    """The ends of the error bars."""
    (x, y), ((left, right), (low, high)) = spot.mean, _bounds(spot)
    return [[(left, y), (right, y)], [(x, low), (x, high)]]


def _draw_spot(axes: Axes, spot: Spot, style: dict[str, Any]) -> None:
    x, y = spot.mean
    (left, right), (low, high) = _bounds(spot)
    if len(spot.seeds) > 1:
        axes.plot(*zip(*spot.seeds, strict=True), ".", markersize=2, color=style["color"], alpha=0.6, zorder=3)
    if right > left or high > low:
        errors = [[[x - left], [right - x]], [[y - low], [high - y]]]
        axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt="none", ecolor=style["color"], elinewidth=0.7, zorder=3)
    (drawn,) = axes.plot(x, y, linestyle="none", markersize=4.5, markeredgewidth=1, zorder=4, label=spot.label, **style)
    tell(drawn, [f"{spot.label}: gain {x:+.1f}, retention {y:+.1f}".replace("-", "−")])


def _draw_fronts(axes: Axes, trivial: Sequence[Point], pareto: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Returns the pieces of the two lines."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    xs, ys = _stairs(trivial, left, bottom)
    axes.fill_between(xs, ys, bottom, color="#eeeeee", linewidth=0, zorder=0)
    axes.plot(xs, ys, color="#aaaaaa", linewidth=0.7, zorder=1)
    others = _stairs(pareto, left, bottom)
    axes.plot(*others, color="black", linewidth=0.7, linestyle=(0, (4, 2)), zorder=2)
    return [piece for line in ((xs, ys), others) for piece in itertools.pairwise(zip(*line, strict=True))]


def _stairs(line: Sequence[Point], left: float, bottom: float) -> tuple[list[float], list[float]]:
    """The border of all that the front's points beat: from the left edge along their heights, down to the bottom."""
    xs, ys = [left], []
    for x, y in line:
        xs += [x, x]
        ys += [y, y]
    return xs, [*ys, bottom]


def _limit(axes: Axes, points: Sequence[Point]) -> None:
    limits = []
    for values in zip(*points, strict=True):
        low, high = min(values), max(values)
        middle, half = (low + high) / 2, max(high - low, LEAST) / 2
        limits.append((middle - 1.12 * half, middle + 1.12 * half))
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_legend(figure: Figure, kinds: Sequence[str], between: bool) -> float:
    """Explain markers and lines below the plane; returns the room they take, in inches."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    none: dict[str, Any] = {"linestyle": "none", "markersize": 4.5, "markeredgewidth": 1}
    items: list[Any] = [Line2D([], [], label=kind, **none, **STYLES[kind]) for kind in kinds]
    if between:
        items.append(Line2D([], [], **none | {"markersize": 2}, marker="s", color=GREY, label="averages with the base"))
    items += [
        Line2D([], [], color="black", linewidth=0.7, linestyle=(0, (4, 2)), label="Pareto front"),
        Patch(facecolor="#eeeeee", edgecolor="#aaaaaa", linewidth=0.7, label="within the trivial front"),
    ]
    legend = figure.legend(
        handles=items, loc="lower left", ncols=2, frameon=False, borderpad=0, borderaxespad=0.4, columnspacing=1.2,
        handlelength=1.6, handletextpad=0.5, labelspacing=0.3,
    )  # fmt: skip
    return legend.get_window_extent().height / figure.dpi + 0.1
