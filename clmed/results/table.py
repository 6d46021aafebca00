"""Scores for the terminal: a row for each measurement point, a column for each benchmark."""

import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from clmed.results.metrics import (
    ACCURACY,
    NATS,
    WHOLE,
    Key,
    Rows,
    as_shown,
    forgetting,
    gain,
    is_accuracy,
    lower_is_better,
    matrix,
    primary_metric,
    retention,
)

CLEAN, CONTAMINATED = "clean", "contaminated"  # categories: questions that do not, or do, occur in training text
MOST_CATEGORIES = 3
# As many score columns as fit 100 characters; beyond it the whole benchmarks stay and categories give way.
MOST_COLUMNS = 7
NAME_WIDTH = 12
METRIC_WIDTH = 14
MOST_ROWS = 16
MOST_POINTS = 3  # beside the base, of a turned table
HIDDEN = ("subject:", "letter:")
"""What categories begin with that no table shows."""
BASELINES = {"constant": "one letter", "majority": "majority"}


class Column(NamedTuple):
    key: Key
    heading: str
    role: str


def score_table(rows: Rows) -> Table:
    """Each benchmark's primary score, and its change since the base model in green (better) or red (worse).

    Accuracies in %, their changes in percentage points; perplexity in nats per token, where a negative change is the
    better one. A benchmark with at most three categories shows them in columns of their own (retention first), as long
    as there is room on a terminal 80 wide; subjects are never shown. A prefix that all benchmarks share ("synthetic-")
    goes into the title. The last rows are what can be had without reading the questions: always the letter that is
    right most often, and each subject's most frequent answer.

    More benchmarks than have room beside each other stand below each other, with a column for each point.
    """
    columns, scores = _columns(rows), matrix(rows)
    prefix = _shared_prefix({column.key[0] for column in columns})
    title = f"{prefix.rstrip('-')} benchmarks: " if prefix else ""
    table = Table(
        title=f"{title}scores and changes since the base model",
        box=None,
        pad_edge=False,
        collapse_padding=True,
        header_style="bold",
        title_style="bold",
    )
    if len(columns) > MOST_COLUMNS:
        return _turned(table, rows, columns, prefix)
    table.caption = "   ".join(f"{role}: {', '.join(names)}" for role, names in _roles(columns, prefix).items())
    table.add_column("point", overflow="fold", min_width=11)
    table.add_column("tokens", justify="right")
    for column in columns:
        small = column.key[1] if column.key[1] != WHOLE else _unit(column.key[2])
        header = Text.assemble(fold(column.heading.removeprefix(prefix), NAME_WIDTH), "\n", (small, "not bold dim"))
        table.add_column(header, overflow="fold")
    for point, row in {row["point"]: row for row in rows}.items():
        cells = [score_cell(column.key[2], scores[column.key], point) for column in columns]
        table.add_row(f"{point} " + fold(row["experience"], NAME_WIDTH), tokens_text(row["tokens"]), *cells)
    for name, label in BASELINES.items():
        found = {(row["benchmark"], row["category"], row["metric"]): row[name] for row in rows if name in row}
        if any(column.key in found for column in columns):
            cells = [
                score_cell(column.key[2], {0: found[column.key]} if column.key in found else {}, 0)
                for column in columns
            ]
            table.add_row(label, "", *cells, style="dim")
    return table


def _turned(table: Table, rows: Rows, columns: Sequence[Column], prefix: str) -> Table:
    """A row for each whole benchmark, by role; a column for the base and each of the last points."""
    scores, points = matrix(rows), {row["point"]: row for row in rows}
    shown = sorted({min(points), *sorted(points)[-MOST_POINTS:]})
    table.add_column("benchmark", overflow="fold")
    for point in shown:
        name = f"{point} " + fold(points[point]["experience"], NAME_WIDTH)
        tokens = Text(tokens_text(points[point]["tokens"]), style="not bold dim")
        table.add_column(Text.assemble(name, "\n", tokens, justify="left"), no_wrap=True, vertical="bottom")
    found = {(row["benchmark"], row["category"], row["metric"]): row for row in rows if row["point"] == min(points)}
    baselines = {name: label for name, label in BASELINES.items() if any(name in row for row in found.values())}
    for heading in baselines.values():
        table.add_column(
            Text(heading.replace(" ", "\n"), style="not bold dim"), justify="right", style="dim", vertical="bottom"
        )
    for role in _roles(columns, prefix):
        table.add_row(Text(role, style="bold"))
        for column in columns:
            if column.role == role and column.heading:
                unit = "nats" if column.key[2] == NATS else _unit(column.key[2]).replace("\n", " ")
                label = Text.assemble("  ", column.heading.removeprefix(prefix), " ", (unit, "dim"))
                cells = [score_cell(column.key[2], scores[column.key], point, between=" ") for point in shown]
                row = found.get(column.key, {})
                floors = [{0: row[baseline]} if baseline in row else {} for baseline in baselines]
                table.add_row(label, *cells, *(score_cell(column.key[2], floor, 0) for floor in floors))
    notes = ["perplexities in nats per token"] if any(column.key[2] == NATS for column in columns) else []
    if hidden := len(points) - len(shown):
        notes.append(f"{hidden} points in between are in results.jsonl")
    table.caption = "; ".join(notes)
    return table


def evaluation_table(rows: Rows) -> Table:
    """What `clmed evaluate` measured: a row for each whole score and category, with its baselines.

    Accuracies and F1 in %. Subjects are not shown, nor categories beyond the first MOST_ROWS of a benchmark.
    """
    table = Table("benchmark", "category", box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    for heading in ("score", *BASELINES.values(), "questions"):
        table.add_column(heading, justify="right", no_wrap=True)
    notes: list[str] = []
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        shown = [row for row in rows if row["benchmark"] == name and not row["category"].startswith(HIDDEN)]
        for index, row in enumerate(shown[:MOST_ROWS]):
            metric = row["metric"]
            share = (
                is_accuracy(metric) or metric.startswith(ACCURACY) or (metric.startswith("f1") and "constant" in row)
            )
            found = [row.get(key) for key in ("score", *BASELINES)]
            values = ["" if v is None else f"{100 * v:.1f}" if share else f"{v:.4f}" for v in found]
            table.add_row(
                Text("" if index else fold(name, NAME_WIDTH)),
                Text(fold(row["category"], NAME_WIDTH)),
                Text(fold(metric, METRIC_WIDTH)),
                values[0],
                *(Text(value, style="dim") for value in values[1:]),
                f"{row['questions']:,}",
            )
        if len(shown) > MOST_ROWS:
            notes.append(f"{name}: {len(shown) - MOST_ROWS} more categories are in results.jsonl")
        if skipped := shown[0].get("skipped"):
            notes.append(f"{name}: rows without a known answer, not asked: {skipped:,}")
    if notes:
        table.caption, table.caption_justify = Text("\n".join(notes)), "left"
    return table


def summary(rows: Rows) -> str:
    """The run in a line: what it gained, what is left of the rest, and where most was forgotten."""
    parts = [
        f"{name} {100 * value:+.1f} points".replace("-", "−")
        for name, value in (("gain", gain(rows)), ("retention", retention(rows)))
        if value is not None
    ]
    lost = {name: value for name, value in forgetting(rows).items() if is_accuracy(primary_metric(rows, name))}
    worst = max(lost, key=lambda name: lost[name], default=None)
    if worst is not None and lost[worst] > 0:
        parts.append(f"most forgotten: {worst} ({100 * lost[worst]:.1f} points below its best)")
    return ", ".join(parts)


def categories(rows: Rows, benchmark: str) -> list[str]:
    """The categories that a table or figure can show apart: at most three, subjects never; else none.

    Where questions were found in training text, these and the others are shown before all other categories.
    """
    found = dict.fromkeys(row["category"] for row in rows if row["benchmark"] == benchmark)
    shown = [name for name in found if name != WHOLE and not name.startswith(HIDDEN)]
    if CONTAMINATED in shown:
        return [name for name in (CLEAN, CONTAMINATED) if name in shown]
    return shown if len(shown) <= MOST_CATEGORIES else []


def _unit(metric: str) -> str:
    if metric in (ACCURACY, NATS):
        return "%" if metric == ACCURACY else "nats/token"
    return fold(f"{metric} %" if is_accuracy(metric) else metric, NAME_WIDTH)


def _columns(rows: Rows) -> list[Column]:
    roles = {row["benchmark"]: row["role"] for row in rows}
    scores = matrix(rows)
    room = MOST_COLUMNS - len(roles)
    splits: dict[str, list[str]] = {}
    for benchmark in sorted(roles, key=lambda name: roles[name] == "gain"):  # what is forgotten is asked for first
        metric = primary_metric(rows, benchmark)
        split = [name for name in categories(rows, benchmark) if (benchmark, name, metric) in scores]
        splits[benchmark] = split if len(split) <= room else []
        room -= len(splits[benchmark])
    columns = []
    for benchmark, role in roles.items():
        metric, split = primary_metric(rows, benchmark), splits[benchmark]
        columns.append(Column((benchmark, WHOLE, metric), benchmark, role))
        columns += [Column((benchmark, name, metric), "", role) for name in split]
    return [column for column in columns if column.key in scores]


def _roles(columns: Sequence[Column], prefix: str) -> dict[str, list[str]]:
    """The benchmarks of each role, without the prefix that all share."""
    roles: dict[str, list[str]] = {}
    for column in columns:
        if column.heading:
            roles.setdefault(column.role, []).append(column.heading.removeprefix(prefix))
    return roles


def _shared_prefix(names: Collection[str]) -> str:
    """What all names begin with, up to its last `-`; nothing for a single name."""
    prefix, dash, _ = os.path.commonprefix(list(names)).rpartition("-")  # noqa: RUF071 (character by character is meant)
    return prefix + dash if len(names) > 1 else ""


def score_cell(metric: str, points: Mapping[int, float], point: int, between: str = "\n") -> Text:
    """`41.3` and below it (or `between` them) `+2.1`, coloured. `–` if it was not measured, `NaN` if no number."""
    if point not in points:
        return Text("–", style="dim")
    if math.isnan(points[point]):
        return Text("NaN", style="red")
    scale, digits = as_shown(metric)
    cell = Text(f"{scale * points[point]:{digits + 3}.{digits}f}")
    change = scale * (points[point] - points.get(0, math.nan))
    if point > 0 and not math.isnan(change):
        shown = f"{change:+.{digits}f}"
        better = change < 0 if lower_is_better(metric) else change > 0
        unchanged = float(shown) == 0
        cell.append(between).append(shown.replace("-", "−"), style="dim" if unchanged else "green" if better else "red")
    return cell


def tokens_text(tokens: float, digits: int = 3) -> str:
    """2_250_000_000 -> `2.25B`, as quantities are written in a configuration."""
    rounded = float(f"{tokens:.{digits}g}")  # first: 999,950 is 1M, not 1e+03k
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if rounded >= unit:
            return f"{rounded / unit:.{digits}g}{letter}"
    return f"{tokens:.0f}"


def fold(name: str, width: int) -> str:
    """Break a long name into lines after `-`, `_`, `/` and spaces; a piece longer than `width` stays whole."""
    lines = [""]
    for piece in filter(None, re.findall(r"[^-_/ ]*[-_/ ]?", name)):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
