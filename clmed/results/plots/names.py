"""The names of points in a plane: points that cannot be told apart share one, and the plane is as high as all need.

Where a page has no room for all, those of the front are named, and it is said.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clmed.results.fronts import Point
from clmed.results.plots.labels import NEAR, nearest, place_labels
from clmed.results.plots.style import BOTTOM, GREY, LEFT, LINE, WIDTH, cut, text_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDGE = 0.08  # inches right of and above the plane
INNER = WIDTH - LEFT - EDGE
HEIGHTS = tuple(2.4 * 1.1**step for step in range(15))  # inches, up to a page's
POLITE = 8  # of the heights: those at which lines to labels keep off other points
MOST = 60  # names that are tried
TOGETHER = 4  # lines of a shared name
ALIKE = 0.01  # of the plane's width and height: two markers are one spot


@dataclass(frozen=True, kw_only=True)
class Name:
    text: str
    point: Point


def names(axes: Axes, every: Iterable[tuple[str, Point]]) -> list[Name]:
    """Of labels and their points."""
    extent = [high - low for low, high in (axes.get_xlim(), axes.get_ylim())]
    spots: dict[tuple[int, ...], list[tuple[str, Point]]] = {}
    for label, point in every:
        spots.setdefault(tuple(round(x / of / ALIKE) for x, of in zip(point, extent, strict=True)), []).append(
            (label, point)
        )
    found = []
    for same in spots.values():
        labels = [label for label, _ in same]
        shown = labels if len(labels) <= TOGETHER else labels[: TOGETHER - 1]
        rest = [f"and {len(labels) - len(shown)} more"] if len(labels) > len(shown) else []
        found.append(Name(text="\n".join([*shown, *rest]), point=same[0][1]))
    return found


def write_names(
    figure: Figure,
    axes: Axes,
    found: Sequence[Name],
    *,
    front: Collection[Point],
    low: float,
    others: Sequence[Point],
    lines: Sequence[Sequence[Point]],
) -> str:
    """Size the plane, with `low` inches below it for the legend, and write names; returns which, if not all.

    others: more points that no name may hide; lines: what names keep off where that is easy.
    """
    texts = ["\n".join(cut(figure, line, INNER - 2 * EDGE) for line in name.text.split("\n")) for name in found]
    sizes = [text_size(figure, text) for text in texts]
    on_front = [number for number, name in enumerate(found) if name.point in front]
    choices = [(list(range(len(found))), "")] if len(found) <= MOST else []
    for which, told in [*choices, (on_front, "named: those on the Pareto front"), ([], "too many for names")]:
        own = [found[number].point for number in which]
        rest = [*(name.point for number, name in enumerate(found) if number not in which), *others]
        for step, height in enumerate(HEIGHTS):
            spots, hidden = _inches(axes, own, height), _inches(axes, rest, height)
            drawn = [_inches(axes, line, height) for line in lines]
            own_sizes = [sizes[number] for number in which]
            centres = place_labels(spots, own_sizes, (INNER, height), hidden, drawn, polite=step < POLITE)
            if centres is None:
                continue
            _size(figure, axes, height, low + (LINE if told else 0.0))
            for number, spot, centre in zip(which, spots, centres, strict=True):
                _write(axes, texts[number], spot, centre, sizes[number], height)
            return told
    raise AssertionError("no names always have room")


def _size(figure: Figure, axes: Axes, height: float, low: float) -> None:
    page = height + BOTTOM + low + EDGE
    figure.set_size_inches(WIDTH, page)
    axes.set_position((LEFT / WIDTH, (BOTTOM + low) / page, INNER / WIDTH, height / page))


def _write(axes: Axes, text: str, spot: Point, centre: Point, size: Point, height: float) -> None:
    """A name, and a line to its point if that is not beside it; in inches."""
    from matplotlib.patheffects import withStroke

    place: dict[str, Any] = {"transform": axes.transAxes, "zorder": 5}
    end = nearest(np.array(spot), np.array(centre), np.array(size) / 2)
    if math.dist(spot, end) > NEAR:
        xs, ys = zip(spot, end, strict=True)
        axes.plot(np.array(xs) / INNER, np.array(ys) / height, color=GREY, linewidth=0.4, **place)
    halo = [withStroke(linewidth=1.5, foreground="white", alpha=0.8)]  # lines pass behind the letters
    style: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.0, "path_effects": halo}
    axes.text(centre[0] / INNER, centre[1] / height, text, **style, **place)


def _inches(axes: Axes, points: Sequence[Point], height: float) -> list[Point]:
    """From the lower left corner of the plane at this height."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return [((x - left) / (right - left) * INNER, (y - bottom) / (top - bottom) * height) for x, y in points]
