"""Forgetting curves: one panel for each benchmark, its score over the domain tokens trained.

Every method has its own colour, marker and dashes, and is labelled at its end instead of in a legend. Of three seeds or
more the mean is drawn, with its 95 % interval as a band; of two, each is a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clmed.results.groups import Group
from clmed.results.metrics import NATS, as_shown, is_accuracy, lower_is_better
from clmed.results.plots.curves import Curve, curves, panels
from clmed.results.plots.frame import End, make_frame
from clmed.results.plots.runs import label, words
from clmed.results.plots.style import COLOURS, DASHES, GREY, MARKERS, new_figure, tell
from clmed.results.table import tokens_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A smaller range of scores would magnify noise.
LEAST_POINTS, LEAST_NATS, LEAST_SHARE = 5.0, 0.1, 0.1


def missing(grouped: Sequence[Group]) -> str:
    """Why there is nothing to draw, or nothing."""
    runs = [run for group in grouped for run in group.runs]
    if any(run.stream for run in runs):
        return ""
    return f"{runs[0].path} has measured the base model only: there is no curve yet; plot it after its next measurement"


def draw(grouped: Sequence[Group]) -> Figure:
    """Two panels in a row, each with its title."""
    runs = [run for group in grouped for run in group.runs]
    shown = [(panel, curves(panel, grouped)) for panel in panels(runs)]
    names = [word for run in runs for word in words(run)]
    with new_figure([*names, *(label(group) for group in grouped)]) as figure:
        labels = [["base", *(curve.label for curve in found)] for _, found in shown]
        streams = [[run.stream for run in runs if panel.benchmark in run.scores] for panel, _ in shown]
        frame = make_frame(figure, streams, labels, across=min(2, len(shown)))
        for axes, track, (panel, found) in zip(frame.panels(figure), frame.tracks, shown, strict=True):
            frame.head(figure, axes, track, panel.benchmark, panel.note)
            frame.label_ends(axes, track, _draw_panel(axes, panel.metric, found))
    return figure


def _draw_panel(axes: Axes, metric: str, found: Sequence[Curve]) -> list[End]:
    """Draw the lines; returns their ends."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.set_ylabel(_axis_label(metric))
    scores = []
    for curve in found:
        style = _style(curve)
        if band := curve.band:
            tokens, low, high = zip(*band, strict=True)
            axes.fill_between(tokens, low, high, color=style["color"], alpha=0.2, linewidth=0, zorder=2)
            scores += [*low, *high]
        for line in [curve.mean] if band else curve.lines:
            (drawn,) = axes.plot(*zip(*line, strict=True), clip_on=False, **style)
            label, digits = curve.label.replace("\n", " "), as_shown(metric)[1]
            tell(drawn, (f"{label}: {score:.{digits}f} after {tokens_text(tokens)}" for tokens, score in line))
            scores += [score for _, score in line]
    bases = {base: curve for curve in found if curve.whole for base in curve.bases}
    for base, curve in bases.items():
        # One base for all is grey and has a label; several bases are known by the colours of their runs.
        colour = GREY if len(bases) == 1 else _style(curve)["color"]
        axes.axhline(base, linewidth=0.9, linestyle=":", color=colour, zorder=1)
    _limit(axes, scores, _least_range(metric, scores))
    ends = [End(label=curve.label, colour=_style(curve)["color"], x=curve.end[0], y=curve.end[1]) for curve in found]
    return [*ends, End(label="base", colour=GREY, x=None, y=next(iter(bases)))] if len(bases) == 1 else ends


def _axis_label(metric: str) -> str:
    if is_accuracy(metric):
        return "accuracy (%)"
    return ("nats/token" if metric == NATS else metric) + (" (lower is better)" if lower_is_better(metric) else "")


def _least_range(metric: str, scores: Sequence[float]) -> float:
    """In the units of the panel; a share of the largest score where nothing is known about the metric."""
    if is_accuracy(metric):
        return LEAST_POINTS
    return LEAST_NATS if metric == NATS else LEAST_SHARE * max(map(abs, scores), default=0.0) or LEAST_SHARE


def _style(curve: Curve) -> dict[str, Any]:
    dashes = DASHES[curve.number % len(DASHES)]
    if not curve.whole:
        return {"color": GREY, "linestyle": dashes, "linewidth": 0.7, "zorder": 2}
    colour, marker = COLOURS[curve.number % len(COLOURS)], MARKERS[curve.number % len(MARKERS)]
    thin = len(curve.lines) > 1 and not curve.band
    size = {"linewidth": 0.8, "markersize": 2.5} if thin else {"linewidth": 1.3, "markersize": 3.5}
    return {"color": colour, "marker": marker, "linestyle": dashes, "zorder": 3, **size}


def _limit(axes: Axes, scores: Sequence[float], least: float) -> None:
    """Fit the y axis to the scores with a little air, at least `least` high."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    middle, half = (high + low) / 2, max(high - low, least) / 2
    axes.set_ylim(middle - 1.1 * half, middle + 1.1 * half)
