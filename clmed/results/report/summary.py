"""The page in a sentence or two."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from clmed.results.comparison import Comparison
from clmed.results.comparison import Row as Compared
from clmed.results.metrics import ACCURACY, is_accuracy
from clmed.results.report.tables import interval, signed
from clmed.results.statistics import Estimate
from clmed.results.table import tokens_text


def sentences(compared: Comparison) -> list[str]:
    """What a reader should know who reads no further."""
    rows = [row for row in compared.rows if row.cells]
    if not rows:
        return ["Only the base model has been measured so far: what training does to it is not known yet."]
    return _of_one(compared, rows[0]) if len(rows) == 1 else _of_several(compared, rows)


def _of_one(compared: Comparison, row: Compared) -> list[str]:
    after = f"After {tokens_text(row.tokens)} domain tokens " if row.tokens else ""
    said = [
        f"{_verb(estimate, 'gained', 'lost')} on {_names(compared, row, role)}"
        for role, estimate in (("gain", row.gain), ("retention", row.retention))
        if estimate is not None and math.isfinite(estimate.value)
    ]
    if not said:
        return []  # nothing is measured in accuracy
    text = f"{after}{row.label} {' and '.join(said)}."
    return [text, *_few([row]), *([_verdict(compared, row)] if row.verdict else [])]


def _verdict(compared: Comparison, row: Compared) -> str:
    assert row.verdict is not None
    margin = _margin(compared)
    return {
        "retained": f"General ability is retained: surely less than {margin} was lost.",
        "forgotten": "General ability was forgotten: the loss is more than chance.",
        "undecided": f"Whether general ability is retained within {margin} is {row.verdict}.",
    }[row.verdict.kind]


def _margin(compared: Comparison) -> str:
    return "1 point" if compared.margin == 0.01 else f"{100 * compared.margin:g} points"


def _of_several(compared: Comparison, rows: Sequence[Compared]) -> list[str]:
    said = [*_ranked(compared, rows), *_few(rows), *_against(compared, rows)]
    if kept := [row.label for row in rows if row.verdict and row.verdict.kind == "retained"]:
        said.append(f"Retained within {_margin(compared)}: {_some(kept)}.")
    return said


def _ranked(compared: Comparison, rows: Sequence[Compared]) -> list[str]:
    """Who is first in gain and in retention, of those that can be compared at all."""
    fair = [row for row in rows if not row.mismatches and not any(_is_nan(each) for each in (row.gain, row.retention))]
    if len(fair) < 2:
        return []  # the notes say why
    what = "runs" if compared.by == "run" else "strategies"
    rest = f" ({len(rows) - len(fair)} more cannot be compared)" if len(fair) < len(rows) else ""
    start = f"{'Of' if all(row.enough for row in fair) else 'In these runs of'} {len(fair)} {what}{rest}"
    parts, before = [], ""
    for role, told in (("gain", _gained), ("retention", _kept)):
        known = [(row.label, value) for row in fair if (value := getattr(row, role)) is not None]
        if known:
            names, text = told(known)
            parts.append(text if names == before else f"{names} {text}")
            before = names
    return [f"{start}, {' and '.join(parts)}."] if parts else []


def _gained(known: Sequence[tuple[str, Estimate]]) -> tuple[str, str]:
    """Who, and what is to be said of them."""
    names, value, points = _first(known)
    if value > 0:
        return names, f"gained {'alike' if _all_alike(known) else 'most'} {points}"
    return f"none gained: {names}", f"lost {'least' if value < 0 else 'nothing'} {points}"


def _kept(known: Sequence[tuple[str, Estimate]]) -> tuple[str, str]:
    names, _, points = _first(known)
    return names, f"kept {'as much' if _all_alike(known) else 'most'} of general ability {points}"


def _first(known: Sequence[tuple[str, Estimate]]) -> tuple[str, float, str]:
    """Who has the highest value, that value, and how it is written: as it is shown, several may have it."""
    top = max((estimate for _, estimate in known), key=lambda estimate: estimate.value)
    names = [label for label, estimate in known if _shown(estimate) == _shown(top)]
    return _some(names), _shown(top), f"({_points(top)})" if len(names) == 1 else f"({signed(_shown(top))} points each)"


def _all_alike(known: Sequence[tuple[str, Estimate]]) -> bool:
    return len(known) > 1 and len({_shown(estimate) for _, estimate in known}) == 1


def _shown(estimate: Estimate) -> float:
    """In points, as the tables round it."""
    return float(f"{100 * estimate.value:.1f}")


def _is_nan(estimate: Estimate | None) -> bool:
    return estimate is not None and math.isnan(estimate.value)


def _few(rows: Sequence[Compared]) -> list[str]:
    few = [f"{row.label} ({len(row.runs)} of {row.needed})" for row in rows if not row.enough]
    if len(few) == len(rows) > 1:
        needed = " or ".join(map(str, sorted({row.needed for row in rows})))
        return [f"None has the {needed} seeds that a statement about a strategy needs."]
    return [f"Too few seeds for a statement about the strategy: {_some(few)}."] if few else []


def _against(compared: Comparison, rows: Sequence[Compared]) -> list[str]:
    """What is more than chance: of gain and retention or, where nothing is, of single benchmarks."""
    others = [row for row in rows if row.label != compared.reference]
    roles = {"in gain": lambda row: row.gain_mark, "in retention": lambda row: row.retention_mark}
    single = {f"on {name}": partial(_mark, name) for name in compared.benchmarks}
    if marks := _marked(others, roles) or _marked(others, single):
        return [f"Compared with {compared.reference}, {'; '.join(marks)}."]
    tested = [row.label for row in others if any(cell.p is not None for cell in row.cells.values())]
    if not tested:
        return []
    none = f"{_some(tested)} {'is' if len(tested) == 1 else 'are'} not" if len(tested) < len(others) else "None is"
    return [f"{none} more than chance better or worse than {compared.reference}."]


def _marked(rows: Sequence[Compared], of: Mapping[str, Callable[[Compared], str]]) -> list[str]:
    return [
        f"{mark} {where}: {_some(marked)}"
        for where, find in of.items()
        for mark in ("better", "worse")
        if (marked := [row.label for row in rows if find(row) == mark])
    ]


def _mark(benchmark: str, row: Compared) -> str:
    return row.cells[benchmark].mark if benchmark in row.cells else ""


def _verb(estimate: Estimate, up: str, down: str) -> str:
    shown = f"{100 * abs(estimate.value):.1f}"
    if float(shown) == 0:
        return "neither gained nor lost"
    return f"{up if estimate.value > 0 else down} {shown} points {interval(estimate, ACCURACY)}".rstrip()


def _points(estimate: Estimate) -> str:
    return f"{signed(100 * estimate.value)} points {interval(estimate, ACCURACY)}".rstrip()


def _names(compared: Comparison, row: Compared, role: str) -> str:
    cells = {name: row.cells[name] for name in compared.benchmarks if name in row.cells}
    names = [name for name, cell in cells.items() if cell.role == role and is_accuracy(cell.metric)]
    return f"{'average over ' if len(names) > 1 else ''}{_some(names)}"


def _some(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`; of many: `a, b, c, d and 3 more`."""
    *others, last = names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
    return f"{', '.join(others)} and {last}" if others else last
