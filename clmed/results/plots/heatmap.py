"""Where it was lost: the change since the base model by category and subject, those that lost most on top.

Of one method: a column for each measurement point. Of several: a column for each, at its end. Red is lost, blue gained,
in points of accuracy, on one scale centred at zero for the whole figure; grey was not measured. Over seeds the mean. A
subject of a hundred questions moves by several points by chance alone.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clmed.results.groups import Group
from clmed.results.metrics import WHOLE, Key, is_accuracy, primary_metric
from clmed.results.plots.runs import label
from clmed.results.plots.style import GREY, LARGE, LINE, WIDTH, cut, new_figure, tell, text_width
from clmed.results.points import measured_points
from clmed.results.runs import Run
from clmed.results.table import fold, tokens_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

SUBJECT = "subject:"
MOST_POINTS = 8  # beyond it only the ends of experiences are shown
LEAST = 5.0  # points: a smaller range would magnify noise
NAME = 1.9  # inches for the longest names; the rest is cut
ROW, GAP, EDGE, BAR = LINE + 0.01, 0.06, 0.08, 0.5
CELL, NARROW = 0.285, 0.17  # the width of a cell with and without its number
PAGE = 2 * WIDTH  # as wide as panels may stand side by side
LABEL = "change since the base model (points of accuracy)"
COLOURS = "RdBu"  # red and blue are told apart by the colour-blind


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A benchmark: blocks of rows (the whole, categories, subjects), each sorted by its loss.

    changes: (rows, columns), in points of accuracy; NaN where not measured.
    """

    benchmark: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    changes: np.ndarray

    @property
    def names(self) -> list[str]:
        return [name for block in self.blocks for name in block]


def missing(grouped: Sequence[Group]) -> str:
    """Why there is nothing to draw, or nothing."""
    if panels(grouped):
        return ""
    return "None of these runs has measured a benchmark with categories or subjects after its base"


def panels(grouped: Sequence[Group]) -> list[Panel]:
    """Every accuracy benchmark that has categories or subjects."""
    runs = [run for group in grouped for run in group.runs if run.stream]
    result = []
    for benchmark in dict.fromkeys(row["benchmark"] for run in runs for row in run.rows):
        metric = next(primary_metric(run.rows, benchmark) for run in runs if benchmark in run.scores)
        found = dict.fromkeys(c for run in runs for b, c, m in run.matrix if (b, m) == (benchmark, metric))
        if not is_accuracy(metric) or len(found) < 2:
            continue
        columns = _columns(grouped)
        changes = {c: [_change(cells, (benchmark, c, metric)) for _, cells in columns] for c in found}
        kinds = {c: 0 if c == WHOLE else 2 if c.startswith(SUBJECT) else 1 for c in found}
        blocks = [
            tuple(sorted((c for c in found if kinds[c] == kind), key=lambda c: _order(changes[c], len(grouped) == 1)))
            for kind in range(3)
        ]
        rows = np.array([changes[c] for block in blocks for c in block])
        labels = tuple(label for label, _ in columns)
        blocks = list(filter(None, blocks))
        result.append(Panel(benchmark=benchmark, columns=labels, blocks=tuple(blocks), changes=rows))
    return result


def draw(grouped: Sequence[Group]) -> Figure:
    """Panels beside each other as long as a page is wide enough, the scale below."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    found = panels(grouped)
    words = [word for panel in found for word in (panel.benchmark, *panel.columns, *panel.names)]
    with new_figure(words) as figure:
        reach = max(LEAST, max(float(np.nanmax(np.abs(panel.changes), initial=0)) for panel in found))
        norm = Normalize(-reach, reach)
        boxes = [_Box.of(figure, panel) for panel in found]
        shelves: list[list[_Box]] = []
        for box in boxes:
            if not shelves or sum(other.width for other in shelves[-1]) + box.width > PAGE:
                shelves.append([])
            shelves[-1].append(box)
        width = max(WIDTH, *(sum(box.width for box in shelf) for shelf in shelves))
        heights = [max(box.height for box in shelf) for shelf in shelves]
        page = sum(heights) + BAR
        figure.set_size_inches(width, page)
        top = page
        for shelf, height in zip(shelves, heights, strict=True):
            left = 0.0
            for box in shelf:
                axes = figure.add_axes((left / width, (top - box.height) / page, box.width / width, box.height / page))
                box.draw(axes, norm)
                left += box.width
            top -= height
        bar = figure.add_axes((0.3 / width, 0.36 / page, (WIDTH - 0.6) / width, 0.08 / page))
        figure.colorbar(ScalarMappable(norm, COLOURS), cax=bar, orientation="horizontal", label=LABEL)
    return figure


@dataclass(frozen=True, kw_only=True)
class _Box:
    """A panel with its measures in inches."""

    panel: Panel
    left: float  # of the cells: the room of the names
    cell: float  # a cell's width
    head: float  # the title and the columns' names

    @classmethod
    def of(cls, figure: Figure, panel: Panel) -> _Box:
        cell = CELL if CELL * len(panel.columns) < WIDTH - NAME - 3 * EDGE else NARROW
        names = [cut(figure, shown_name(name), NAME) for name in panel.names]
        left = (
            max(text_width(figure, name, fontweight="bold" if name == WHOLE else None) for name in names) + 1.5 * EDGE
        )
        head = max(text_width(figure, _column(name, cell)) for name in panel.columns) + 0.3
        return cls(panel=panel, left=left, cell=cell, head=head)

    @property
    def width(self) -> float:
        return max(self.left + self.cell * len(self.panel.columns) + EDGE, WIDTH)

    @property
    def height(self) -> float:
        return self.head + ROW * len(self.panel.names) + GAP * len(self.panel.blocks) + EDGE

    def draw(self, axes: Axes, norm: Normalize) -> None:
        """Axes whose units are inches from their upper left corner."""
        import matplotlib

        axes.set_axis_off()
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.text(EDGE, 0.16, self.panel.benchmark, fontsize=LARGE, fontweight="bold", va="baseline")
        right = [self.left + self.cell * number for number in range(len(self.panel.columns) + 1)]
        for x, name in zip(right, self.panel.columns, strict=False):
            place: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "bottom", "linespacing": 1.0}
            axes.text(x + self.cell / 2, self.head - 0.04, _column(name, self.cell), color=GREY, **place)
        colours = matplotlib.colormaps[COLOURS].with_extremes(bad="#bbbbbb")
        y, row = self.head, 0
        for block in self.panel.blocks:
            changes = self.panel.changes[row : row + len(block)]
            edges = [y + ROW * number for number in range(len(block) + 1)]
            cells = axes.pcolormesh(right, edges, changes, cmap=colours, norm=norm, edgecolors="white", linewidth=0.4)
            tell(cells, _told(block, self.panel.columns, changes))
            for name, values, top in zip(block, changes, edges, strict=False):
                self._draw_row(axes, name, values, top + ROW / 2, norm)
            y, row = edges[-1] + GAP, row + len(block)

    def _draw_row(self, axes: Axes, name: str, values: np.ndarray, y: float, norm: Normalize) -> None:
        text = cut(axes.figure, shown_name(name), NAME)  # type: ignore[arg-type]
        middle: dict[str, Any] = {"va": "center_baseline", "fontweight": "bold" if name == WHOLE else "normal"}
        axes.text(self.left - EDGE / 2, y, text, ha="right", **middle)
        for number, value in enumerate(values):
            if words := self._written(value):
                # From there on white is the better read on RdBu, by the contrast of WCAG.
                colour = "white" if abs(value) > 0.7 * float(norm.vmax or 1) else "black"
                axes.text(self.left + self.cell * (number + 0.5), y, words, ha="center", color=colour, **middle)

    def _written(self, value: float) -> str:
        """The number, or where that has no room a plus for a gain: in grey, it looks like a loss."""
        if not math.isfinite(value):
            return ""
        rounded = round(value)
        if self.cell == CELL:
            return f"{rounded:+d}".replace("-", "−") if rounded else "0"
        return "+" if rounded > 0 else ""


def _told(names: Sequence[str], columns: Sequence[str], changes: np.ndarray) -> Iterator[str]:
    """Of each cell, row by row."""
    for name, values in zip(names, changes, strict=True):
        for column, value in zip(columns, values, strict=True):
            told = f"{value:+.1f} points".replace("-", "−") if math.isfinite(value) else "not measured"
            yield f"{shown_name(name)}: {told} ({' '.join(column.split())})"


def shown_name(category: str) -> str:
    """As it is written beside its row."""
    return category.removeprefix(SUBJECT).replace("_", " ")


def _column(name: str, cell: float) -> str:
    name = re.sub(r"(?<=[-_/])\n", "", name).replace("\n", " ")
    return fold(name, max(18, len(name) // 2 + 2)) if cell == CELL else name  # a cell is two lines wide


def _columns(grouped: Sequence[Group]) -> list[tuple[str, list[tuple[Run, int]]]]:
    """The label of each column, and the runs and their points that it is the mean of."""
    if len(grouped) > 1:
        trained = [(label(group), [run for run in group.runs if run.stream]) for group in grouped]
        return [(name, [(run, run.last) for run in runs]) for name, runs in trained if runs]
    runs = grouped[0].runs
    points = [point for point in measured_points(runs[0].rows) if point.number > 0]
    if len(points) > MOST_POINTS:
        points = [point for point in points if point.final]
    names = [p.experience if p.final else f"{p.experience}@{tokens_text(p.inside)}" for p in points]
    return [(name, [(run, point.number) for run in runs]) for name, point in zip(names, points, strict=True)]


def _change(cells: Sequence[tuple[Run, int]], key: Key) -> float:
    """In points, the mean over seeds; NaN where none was measured."""
    scores = [(run.matrix.get(key, {}), point) for run, point in cells]
    found = [100 * (points.get(point, math.nan) - points.get(0, math.nan)) for points, point in scores]
    found = [value for value in found if math.isfinite(value)]
    return statistics.fmean(found) if found else math.nan


def _order(changes: Sequence[float], alone: bool) -> float:
    """What rows are sorted by: the change at the end of the one method, or the mean over all; NaN comes last."""
    finite = [change for change in changes if math.isfinite(change)]
    if not finite:
        return math.inf
    return finite[-1] if alone else statistics.fmean(finite)
