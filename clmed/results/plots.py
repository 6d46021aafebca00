"""Forgetting curves: one panel for each benchmark, its score over the domain tokens trained.

Made for print: a panel is one column (3.3 in) wide with no text below 7 pt, lines are labelled at their ends instead of
in a legend, and every run has its own colour (Okabe & Ito 2008, told apart by the colour-blind), marker and dashes, so
that the figure survives a grey copy.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clmed.errors import UserError
from clmed.results.axis import TokenAxis, spread
from clmed.results.curves import Curve, Group, Panel, Run, curves, groups, panels
from clmed.results.fonts import han_fonts
from clmed.results.metrics import NATS, is_accuracy, lower_is_better
from clmed.results.rundir import write_whole
from clmed.results.table import fold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lengths in inches.
WIDTH, HEIGHT = 3.3, 2.3
LEFT, BOTTOM, TITLE = 0.5, 0.4, 0.24
BELOW = 0.25  # how far labels may hang below a panel: above it are the names of the experiences
SMALL, LARGE = 7.0, 8.0  # points
LINE = SMALL * 1.2 / 72
GREY = "#555555"
# Without Okabe and Ito's yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"
# Dots are kept for the base model. Four patterns and seven colours make 28 different pairs.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (2.5, 1)))
# A smaller range of scores would magnify noise.
LEAST_POINTS, LEAST_NATS, LEAST_SHARE = 5.0, 0.1, 0.1


def plot_runs(runs: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Draw the forgetting curves of `runs` in one figure; returns the files written: forgetting.png, forgetting.svg.

    They go to `out`; by default to the run's own figures/ for one run, and for several to figures/ in the current
    directory. Runs of one `name` with different seeds share colour and label. The lines between experiences are those
    of the run with the most experiences. Raises UserError for what is no run and for a run without results.
    """
    if not runs:
        raise UserError("There are no runs to plot; give the folder of one run or of several.")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    opened = [Run(path=Path(path)) for path in runs]
    if not any(run.stream for run in opened):
        raise UserError(
            f"{runs[0]} has measured the base model only: there is no curve yet; plot it after its next measurement."
        )
    grouped = groups(opened)
    words = [
        word for run in opened for row in run.rows for word in (row["benchmark"], row["experience"], row["category"])
    ]
    fonts = ["DejaVu Sans", *han_fonts(" ".join([*words, *(group.label for group in grouped)]))]
    settings: dict[Any, Any] = {
        "font.family": fonts,
        "font.size": SMALL,
        "text.parse_math": False,
        "svg.hashsalt": "clmed",
    }
    folder = out or (opened[0].directory.figures if len(opened) == 1 else Path("figures"))
    files = [folder / "forgetting.png", folder / "forgetting.svg"]
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(dpi=200)
        FigureCanvasAgg(figure)
        _draw(figure, opened, grouped)
        for file in files:
            # Without a date the same run gives the same bytes.
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(drawn := io.BytesIO(), format=file.suffix[1:], metadata=metadata)
            write_whole(file, drawn.getvalue())
    return files


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What all panels share: the axis, the margins that the labels need, the names of the experiences above."""

    axis: TokenAxis
    inner: float  # inches between the axes' left and right edge
    right: float  # inches of the right margin
    strip: float  # inches between the axes and the title
    names: tuple[str, ...]
    centres: tuple[float, ...]  # of the names, as shares of `inner`
    height: float  # inches between the axes' lower and upper edge


def _draw(figure: Figure, runs: Sequence[Run], grouped: Sequence[Group]) -> None:
    """Two panels in a row, each with its title; all lengths are inches until matplotlib is told."""
    shown = [(panel, curves(panel, grouped)) for panel in panels(runs)]
    across = min(2, len(shown))
    down = math.ceil(len(shown) / across)
    layout, footer = _lay_out(figure, runs, [found for _, found in shown], across)
    step = BOTTOM + layout.height + layout.strip + TITLE
    foot = LINE * (1 + footer.count("\n")) + 0.1 if footer else 0.0
    width, height = across * WIDTH, down * step + foot
    figure.set_size_inches(width, height)
    figure.text(LEFT / width, 0.06 / height, footer, color=GREY, va="bottom")
    for number, (panel, found) in enumerate(shown):
        x = number % across * WIDTH + LEFT
        y = foot + (down - 1 - number // across) * step + BOTTOM
        axes = figure.add_axes((x / width, y / height, layout.inner / width, layout.height / height))
        _draw_panel(axes, panel, found, layout)


def _lay_out(figure: Figure, runs: Sequence[Run], found: Sequence[list[Curve]], across: int) -> tuple[_Layout, str]:
    """The common layout, and the footer that explains numbers if the names of the experiences have no room.

    found: the curves of each panel.
    """
    stream = max((run.stream for run in runs), key=len)
    furthest = max(row["tokens"] for run in runs for row in run.rows)
    axis = TokenAxis(ends=tuple(stream.values()), furthest=furthest)
    right = max(_text_width(figure, label) for label in ("base", *(c.label for panel in found for c in panel))) + 0.14
    inner = WIDTH - LEFT - right
    edges = [axis.fraction(0), *(axis.fraction(end) for end in stream.values())]
    # The first and the last name may reach over the margins.
    limits = [-LEFT / inner, *edges[1:-1], 1 + right / inner]
    spans = list(itertools.pairwise(limits))
    centres = [(start + end) / 2 for start, end in itertools.pairwise(edges)]
    names, footer = [str(number) for number in range(1, len(stream) + 1)], ""
    for candidate in (list(stream), [fold(name, 10) for name in stream]):
        widths = [(_text_width(figure, name) + 0.08) / inner for name in candidate]
        if all(width <= high - low for width, (low, high) in zip(widths, spans, strict=False)):
            names = candidate
            places = zip(centres, widths, spans, strict=False)
            centres = [min(max(x, low + width / 2), high - width / 2) for x, width, (low, high) in places]
            break
    else:
        footer = _footer(figure, list(stream), across * WIDTH - LEFT - 0.1)
    strip = LINE * (1 + max((name.count("\n") for name in names), default=0)) + 0.04
    lines = max(1 + sum(1 + curve.label.count("\n") for curve in panel) for panel in found)  # the first: the base
    return _Layout(
        axis=axis,
        inner=inner,
        right=right,
        strip=strip,
        names=tuple(names),
        centres=tuple(centres),
        # With many runs their labels need more room than the curves.
        height=max(HEIGHT - BOTTOM - TITLE, 1.02 * lines * LINE - BELOW),
    ), footer


def _footer(figure: Figure, names: Sequence[str], width: float) -> str:
    lines = [""]
    for number, name in enumerate(names, start=1):
        longer = f"{lines[-1]}   {number} {name}".lstrip()
        if lines[-1] and _text_width(figure, longer) > width:
            lines.append(f"{number} {name}")
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _text_width(figure: Figure, text: str) -> float:
    artist = figure.text(0, 0, text)
    box = artist.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    artist.remove()
    return box.width / figure.dpi


def _axis_label(metric: str) -> str:
    if is_accuracy(metric):
        return "accuracy (%)"
    return ("nats/token" if metric == NATS else metric) + (" (lower is better)" if lower_is_better(metric) else "")


def _least_range(metric: str, scores: Sequence[float]) -> float:
    """In the units of the panel; a share of the largest score where nothing is known about the metric."""
    if is_accuracy(metric):
        return LEAST_POINTS
    return LEAST_NATS if metric == NATS else LEAST_SHARE * max(map(abs, scores), default=0.0) or LEAST_SHARE


def _draw_panel(axes: Axes, panel: Panel, found: Sequence[Curve], layout: _Layout) -> None:
    from matplotlib.ticker import MaxNLocator

    axis = layout.axis
    axis.apply(axes)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=2.5, pad=2)
    axes.grid(axis="y", linewidth=0.4, color="#dddddd")
    axes.set_ylabel(_axis_label(panel.metric), labelpad=2)
    axes.set_xlabel("domain tokens" + (" (one scale per experience)" if axis.stretched else ""), labelpad=2)
    _draw_head(axes, panel, layout)
    for curve in found:
        for line in curve.lines:
            axes.plot(*zip(*line, strict=True), clip_on=False, **_style(curve))
    bases = {base: curve for curve in found if curve.whole for base in curve.bases}
    for base, curve in bases.items():
        # One base for all is grey and has a label; several bases are known by the colours of their runs.
        colour = GREY if len(bases) == 1 else _style(curve)["color"]
        axes.axhline(base, linewidth=0.9, linestyle=":", color=colour, zorder=1)
    scores = [score for curve in found for line in curve.lines for _, score in line]
    _limit(axes, scores, _least_range(panel.metric, scores))
    ends = [(curve.label, _style(curve)["color"], *curve.end) for curve in found]
    _label_ends(axes, ends, next(iter(bases)) if len(bases) == 1 else None, layout)


def _draw_head(axes: Axes, panel: Panel, layout: _Layout) -> None:
    """The title, and below it the names of the experiences between lines that rise from the panel."""
    place: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "linespacing": 1.0}
    top = 1 + layout.strip / layout.height
    for tokens in layout.axis.boundaries:
        axes.axvline(tokens, ymax=top, linewidth=0.6, color="#999999", zorder=1, clip_on=False)
    for name, centre in zip(layout.names, layout.centres, strict=True):
        axes.text(centre, 1 + 0.03 / layout.height, name, color=GREY, ha="center", **place)
    head, line = top + 0.06 / layout.height, {**place, "va": "baseline"}
    axes.text(-0.8 * LEFT / layout.inner, head, panel.benchmark, fontsize=LARGE, fontweight="bold", **line)
    axes.text(1 + (layout.right - 0.08) / layout.inner, head, panel.note, color=GREY, ha="right", **line)


def _style(curve: Curve) -> dict[str, Any]:
    dashes = DASHES[curve.number % len(DASHES)]
    if not curve.whole:
        return {"color": GREY, "linestyle": dashes, "linewidth": 0.7, "zorder": 2}
    colour, marker = COLOURS[curve.number % len(COLOURS)], MARKERS[curve.number % len(MARKERS)]
    size = {"linewidth": 1.3, "markersize": 3.5} if len(curve.lines) == 1 else {"linewidth": 0.8, "markersize": 2.5}
    return {"color": colour, "marker": marker, "linestyle": dashes, "zorder": 3, **size}


def _limit(axes: Axes, scores: Sequence[float], least: float) -> None:
    """Fit the y axis to the scores with a little air, at least `least` high."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    middle, half = (high + low) / 2, max(high - low, least) / 2
    axes.set_ylim(middle - 1.1 * half, middle + 1.1 * half)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, str, float, float]], base: float | None, layout: _Layout) -> None:
    """Name the lines in the right margin at the heights of their ends, nudged apart; a hair line joins end and name.

    `ends`: label, colour, tokens and score of each end; `base`: the score of the dotted line, if there is one only.
    """
    low, high = axes.get_ylim()
    all_ends = [*ends, ("base", GREY, 0.0, base)] if base is not None else list(ends)
    wanted = [(score - low) / (high - low) for *_, score in all_ends]
    heights = [LINE * (1 + label.count("\n")) / layout.height for label, *_ in all_ends]
    x_text = 1 + 0.1 / layout.inner
    place: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    nudged = spread(wanted, heights, -BELOW / layout.height, 1.0)
    for end, y_end, y in zip(all_ends, wanted, nudged, strict=True):
        label, colour, tokens, _ = end
        x_end = 1.0 if label == "base" else layout.axis.fraction(tokens) + 0.03 / layout.inner
        # From far away a hair line would look like a curve.
        if x_end > 0.5:
            axes.plot([x_end, x_text - 0.02 / layout.inner], [y_end, y], linewidth=0.4, color=colour, zorder=2, **place)
        axes.text(x_text, y, label, color=colour, va="center", linespacing=1.0, **place)
