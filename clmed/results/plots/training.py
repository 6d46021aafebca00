"""Training curves: the loss of each source and the learning rate, over the domain tokens trained.

Of one run: a panel with all its sources, each step in pale behind its mean over windows of steps. Of several: a panel
for each source, with a line for every run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clmed.results.groups import Group
from clmed.results.plots.frame import End, make_frame
from clmed.results.plots.runs import folded, label
from clmed.results.plots.streams import Stream, trained
from clmed.results.plots.style import COLOURS, DASHES, new_figure
from clmed.results.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = list[tuple[float, float]]

WINDOWS = 100  # in an experience: more would be noise at a column's width
WIDE = 20  # a loss that falls by more than this factor is shown on a logarithmic scale
RATE = "learning rate"


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one label stands for: a line of each seed, for each experience. `number` chooses the style."""

    label: str
    number: int
    steps: tuple[Line, ...]  # (domain tokens, value)
    streams: tuple[Stream, ...]  # of the seeds that have any

    @property
    def lines(self) -> list[Line]:
        return [smooth(line) for line in self.steps]


def missing(grouped: Sequence[Group]) -> str:
    """Why there is nothing to draw, or nothing."""
    if any(run.training for group in grouped for run in group.runs):
        return ""
    return f"{grouped[0].runs[0].path} holds no training steps"


def sources(runs: Sequence[Run]) -> list[str]:
    """Every source that has been trained on, in the order of the streams."""
    return [*dict.fromkeys(key[5:] for run in runs for row in run.training for key in row if key.startswith("loss/"))]


def values(run: Run, key: str) -> list[Line]:
    """(domain tokens, value) at every step that has a finite one, for each experience."""
    result = []
    for _, rows in itertools.groupby(run.training, key=lambda row: row["experience"]):
        line = [(float(row["tokens"]), row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
        result += [line] if line else []
    return result


def smooth(line: Line, windows: int = WINDOWS) -> Line:
    """Means of tokens and values over at most so many windows of equally many steps, up to one."""
    count = min(windows, len(line))
    edges = [len(line) * number // count for number in range(count + 1)]
    return [_mean(line[start:end]) for start, end in itertools.pairwise(edges)]


def panels(grouped: Sequence[Group]) -> dict[str, list[Series]]:
    """Title -> what is drawn in this panel."""
    runs = [run for group in grouped for run in group.runs]
    found = sources(runs)
    if len(grouped) == 1:
        # The colour of a source is the same in the figure of the mixture.
        series = [_series(folded(name), n, grouped[0], f"loss/{name}") for n, name in enumerate(found)]
        return {"loss by source": series, RATE: [_series("", 0, grouped[0], "lr")]}
    result = {name: [_series(label(g), n, g, f"loss/{name}") for n, g in enumerate(grouped)] for name in found}
    result[RATE] = [_series(label(group), n, group, "lr") for n, group in enumerate(grouped)]
    return {title: [each for each in series if each.steps] for title, series in result.items()}


def draw(grouped: Sequence[Group]) -> Figure:
    """One column for one run, else two panels in a row."""
    shown, alone = panels(grouped), len(grouped) == 1
    streams = [[stream for series in found for stream in series.streams] for found in shown.values()]
    words = [*shown, *(series.label for found in shown.values() for series in found)]
    with new_figure([*words, *(name for panel in streams for stream in panel for name in stream)]) as figure:
        labels = [[series.label for series in found] for found in shown.values()]
        frame = make_frame(figure, streams, labels, across=1 if alone else 2)
        for axes, track, (title, found) in zip(frame.panels(figure), frame.tracks, shown.items(), strict=True):
            frame.head(figure, axes, track, title, "" if title == RATE or alone else "loss")
            axes.set_ylabel(RATE if title == RATE else "nats/token")
            frame.label_ends(axes, track, _draw_panel(axes, found, rate=title == RATE, pale=alone))
    return figure


def _draw_panel(axes: Axes, found: Sequence[Series], *, rate: bool, pale: bool) -> list[End]:
    """Draw the lines, and with `pale` every step's loss behind them; returns the ends of those with a label."""
    every = [value for series in found for line in series.lines for _, value in line]
    if not rate and every and min(every) > 0 and max(every) > WIDE * min(every):
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: _rate(value) if rate else f"{value:g}")
    ends = []
    for series in found:
        style: dict[str, Any] = {"color": COLOURS[series.number % len(COLOURS)]}
        for line, steps in zip(series.lines, series.steps, strict=True):
            if pale and not rate:
                axes.plot(*zip(*steps, strict=True), linewidth=0.4, alpha=0.3, zorder=2, **style)
            axes.plot(*zip(*line, strict=True), linewidth=1.1, linestyle=DASHES[series.number % 4], zorder=3, **style)
        if series.label and series.steps:
            x, y = series.lines[-1][-1]
            ends.append(End(label=series.label, colour=style["color"], x=x, y=y))
    return ends


def _series(label: str, number: int, group: Group, key: str) -> Series:
    lines = {run: found for run in group.runs if (found := values(run, key))}
    steps = tuple(line for found in lines.values() for line in found)
    return Series(label=label, number=number, steps=steps, streams=tuple(trained(run) for run in lines))


def _mean(pairs: Line) -> tuple[float, float]:
    xs, ys = zip(*pairs, strict=True)
    return sum(xs) / len(xs), sum(ys) / len(ys)


def _rate(value: float) -> str:
    """0.00025 -> `2.5e-4`, as rates are written."""
    digits, power = f"{value:.1e}".split("e")
    return f"{float(digits):g}e{int(power)}" if value else "0"
