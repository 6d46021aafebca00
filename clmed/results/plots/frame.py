"""Panels over the domain tokens: their common axis, the experiences' names above, and labels at the lines' ends."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clmed.results.plots.axis import TokenAxis, spread
from clmed.results.plots.streams import Stream, by_panel
from clmed.results.plots.style import (
    BOTTOM,
    GREY,
    HEIGHT,
    LARGE,
    LEFT,
    LINE,
    PALE,
    TITLE,
    WIDTH,
    cut,
    text_width,
)
from clmed.results.table import fold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BELOW = 0.25  # how far labels may hang below a panel: above it are the names of the experiences


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a line and its label; `x`: domain tokens; None for a line across the whole panel."""

    label: str
    colour: str
    x: float | None
    y: float


@dataclass(frozen=True, kw_only=True)
class Track:
    """The experiences of a panel along its axis."""

    axis: TokenAxis
    names: tuple[str, ...]
    centres: tuple[float, ...]  # of the names, as shares of the axes' width


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all panels of a figure share, and the track of each. Lengths in inches."""

    across: int  # panels in a row
    tracks: tuple[Track, ...]
    inner: float  # between the axes' left and right edge
    right: float  # the right margin
    strip: float  # between the axes and the title
    height: float  # between the axes' lower and upper edge
    footer: str  # explains numbers if the names have no room

    def panels(self, figure: Figure, foot: float = 0.0) -> list[Axes]:
        """Size the figure for its panels and add their axes, row by row. `foot`: room kept at the bottom."""
        down = -(-len(self.tracks) // self.across)
        step = BOTTOM + self.height + self.strip + TITLE
        low = LINE * (1 + self.footer.count("\n")) + 0.1 if self.footer else 0.0
        width, height = self.across * WIDTH, down * step + low + foot
        figure.set_size_inches(width, height)
        figure.text(LEFT / width, (0.06 + foot) / height, self.footer, color=GREY, va="bottom")
        result = []
        for number, track in enumerate(self.tracks):
            x = number % self.across * WIDTH + LEFT
            y = foot + low + (down - 1 - number // self.across) * step + BOTTOM
            axes = figure.add_axes((x / width, y / height, self.inner / width, self.height / height))
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            axes.grid(axis="y", linewidth=0.4, color=PALE)
            track.axis.apply(axes)
            axes.set_xlabel("domain tokens" + (" (one scale per experience)" if track.axis.stretched else ""))
            result.append(axes)
        return result

    def head(self, figure: Figure, axes: Axes, track: Track, title: str, note: str) -> None:
        """The title, and below it the names of the experiences between lines that rise from the panel."""
        place: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "linespacing": 1.0}
        top = 1 + self.strip / self.height
        for tokens in track.axis.boundaries:
            axes.axvline(tokens, ymax=top, linewidth=0.6, color="#999999", zorder=1, clip_on=False)
        for name, centre in zip(track.names, track.centres, strict=True):
            axes.text(centre, 1 + 0.03 / self.height, name, color=GREY, ha="center", **place)
        head, line = top + 0.06 / self.height, {**place, "va": "baseline"}
        style: dict[str, Any] = {"fontsize": LARGE, "fontweight": "bold"}
        room = WIDTH - 0.3 - (text_width(figure, note) if note else 0)
        axes.text(-0.8 * LEFT / self.inner, head, cut(figure, title, room, **style), **style, **line)
        axes.text(1 + (self.right - 0.08) / self.inner, head, note, color=GREY, ha="right", **line)

    def label_ends(self, axes: Axes, track: Track, ends: Sequence[End]) -> None:
        """Name the lines in the right margin at the heights of their ends, nudged apart; a hair line joins the two."""
        axes.get_ylim()  # brings the scale up to date with the data
        shares = axes.transAxes.inverted()
        wanted = [float(shares.transform(axes.transData.transform((0, end.y)))[1]) for end in ends]
        heights = [LINE * (1 + end.label.count("\n")) / self.height for end in ends]
        x_text = 1 + 0.1 / self.inner
        place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        for end, y_end, y in zip(ends, wanted, spread(wanted, heights, -BELOW / self.height, 1.0), strict=True):
            x_end = 1.0 if end.x is None else track.axis.fraction(end.x) + 0.03 / self.inner
            hair: dict[str, Any] = {"linewidth": 0.4, "color": end.colour, "zorder": 2}
            # From far away a hair line would look like a curve.
            if x_end > 0.5:
                axes.plot([x_end, x_text - 0.02 / self.inner], [y_end, y], **hair, **place)
            axes.text(x_text, y, end.label, color=end.colour, va="center", linespacing=1.0, **place)


def make_frame(
    figure: Figure, panels: Sequence[Sequence[Stream]], labels: Sequence[Sequence[str]], across: int
) -> Frame:
    """Lay out panels. `panels`: of each, the streams of its runs; `labels`: those at the ends of its lines."""
    right = max((text_width(figure, label) for panel in labels for label in panel), default=0.0) + 0.14
    inner = WIDTH - LEFT - right
    streams = by_panel(panels)
    found = [_written(figure, stream, inner, right) for stream in streams]
    crowded = dict.fromkeys(name for stream, track in zip(streams, found, strict=True) if not track for name in stream)
    numbers = {name: str(number) for number, name in enumerate(crowded, start=1)}
    tracks = [track or _numbered(stream, numbers) for stream, track in zip(streams, found, strict=True)]
    lines = max((sum(1 + label.count("\n") for label in panel) for panel in labels), default=0)
    return Frame(
        across=across,
        tracks=tuple(tracks),
        inner=inner,
        right=right,
        strip=LINE * (1 + max((name.count("\n") for track in tracks for name in track.names), default=0)) + 0.04,
        # With many runs their labels need more room than the curves.
        height=max(HEIGHT - BOTTOM - TITLE, 1.02 * lines * LINE - BELOW),
        footer=_footer(figure, list(crowded), across * WIDTH - LEFT - 0.1),
    )


def _written(figure: Figure, stream: Stream, inner: float, right: float) -> Track | None:
    """With the experiences' names, folded where they are long; None where they have no room."""
    axis, edges, centres = _along(stream)
    # The first and the last name may reach over the margins.
    spans = list(itertools.pairwise([-LEFT / inner, *edges[1:-1], 1 + right / inner]))
    for names in (list(stream), [fold(name, 10) for name in stream]):
        widths = [(text_width(figure, name) + 0.08) / inner for name in names]
        if all(width <= high - low for width, (low, high) in zip(widths, spans, strict=False)):
            places = zip(centres, widths, spans, strict=False)
            centres = [min(max(x, low + width / 2), high - width / 2) for x, width, (low, high) in places]
            return Track(axis=axis, names=tuple(names), centres=tuple(centres))
    return None


def _numbered(stream: Stream, numbers: Mapping[str, str]) -> Track:
    axis, _, centres = _along(stream)
    return Track(axis=axis, names=tuple(numbers[name] for name in stream), centres=tuple(centres))


def _along(stream: Stream) -> tuple[TokenAxis, list[float], list[float]]:
    """The axis, where experiences begin and end on it, and their middles, as shares of the axes' width."""
    axis = TokenAxis(ends=tuple(stream.values()))
    edges = [axis.fraction(0), *(axis.fraction(end) for end in stream.values())]
    return axis, edges, [(start + end) / 2 for start, end in itertools.pairwise(edges)]


def _footer(figure: Figure, names: Sequence[str], width: float) -> str:
    lines = [""]
    for number, name in enumerate(names, start=1):
        longer = f"{lines[-1]}   {number} {name}".lstrip()
        if lines[-1] and text_width(figure, longer) > width:
            lines.append(f"{number} {name}")
        else:
            lines[-1] = longer
    return "\n".join(lines)
