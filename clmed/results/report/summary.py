"""The page in a sentence or two."""

from collections.abc import Callable, Sequence

from clmed.results.comparison import Comparison
from clmed.results.comparison import Row as Compared
from clmed.results.metrics import ACCURACY
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
    said = []
    if row.gain is not None:
        said.append(f"{_verb(row.gain, 'gained', 'lost')} on {_names(compared, row, 'gain')}")
    if row.retention is not None:
        said.append(f"{_verb(row.retention, 'gained', 'lost')} on {_names(compared, row, 'retention')}")
    if not said:
        return []  # nothing is measured in accuracy
    text = f"{after}{row.label} {' and '.join(said)}."
    return [text, _verdict(compared, row)] if row.verdict else [text]


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
    what = "runs" if compared.by == "run" else "strategies"
    best = [
        f"{row.label} {told} ({_points(value)})"
        for told, row, value in (
            _best(rows, "gained most", lambda row: row.gain),
            _best(rows, "kept most of general ability", lambda row: row.retention),
        )
        if row is not None and value is not None
    ]
    said = [f"Of {len(rows)} {what}, {' and '.join(best)}."] if best else []
    against = []
    for name, role in (("gain", "gain_mark"), ("retention", "retention_mark")):
        for mark in ("better", "worse"):
            marked = [row.label for row in rows if getattr(row, role) == mark]
            if marked:
                against.append(f"{mark} in {name}: {_some(marked)}")
    others = [row for row in rows if row.label != compared.reference]
    if against:
        said.append(f"Compared with {compared.reference}, {'; '.join(against)}.")
    elif any(cell.p is not None for row in others for cell in row.cells.values()):  # something was tested
        said.append(f"None is more than chance better or worse than {compared.reference}.")
    if kept := [row.label for row in rows if row.verdict and row.verdict.kind == "retained"]:
        said.append(f"Retained within {_margin(compared)}: {_some(kept)}.")
    return said


def _best(
    rows: Sequence[Compared], told: str, of: Callable[[Compared], Estimate | None]
) -> tuple[str, Compared | None, Estimate | None]:
    known = [(row, value) for row in rows if (value := of(row)) is not None]
    row, value = max(known, key=lambda pair: pair[1].value, default=(None, None))
    return told, row, value


def _verb(estimate: Estimate, up: str, down: str) -> str:
    shown = f"{100 * abs(estimate.value):.1f}"
    if float(shown) == 0:
        return "neither gained nor lost"
    return f"{up if estimate.value > 0 else down} {shown} points {interval(estimate, ACCURACY)}".rstrip()


def _points(estimate: Estimate) -> str:
    return f"{signed(100 * estimate.value)} points {interval(estimate, ACCURACY)}".rstrip()


def _names(compared: Comparison, row: Compared, role: str) -> str:
    return _some([name for name in compared.benchmarks if name in row.cells and row.cells[name].role == role
                  and row.cells[name].metric != "nats_per_token"])  # fmt: skip


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
