"""The tables of the page: cells with what is shown and what it sorts by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clmed.results.metrics import NATS, as_shown, lower_is_better
from clmed.results.statistics import Estimate

NONE, NO_NUMBER = "–", "NaN"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """text: what is shown; sort: what the column sorts by (the text itself without it); note: small, beside it; mark:
    "better" or "worse", as a word; tone: the same, as colour and weight; bar: the length of a bar below it as a share
    of the longest, -1 to 1."""

    text: str
    sort: float | None = None
    note: str = ""
    mark: str = ""
    tone: str = ""
    bar: float | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """minor: hidden on a phone, where the reader has room for what matters most; wide: holds sentences, which are not
    to be squeezed."""

    heading: str
    numeric: bool = True
    hint: str = ""
    minor: bool = False
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """filterable: gets a field that hides the rows without a word; belongs: what each row belongs to (a benchmark), to
    choose from beside that; cut: rows there are besides those shown."""

    name: str  # its id on the page
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    filterable: bool = False
    belongs: Sequence[str] = ()
    cut: int = 0

    @property
    def choices(self) -> list[str]:
        """What there is to choose from."""
        return list(dict.fromkeys(self.belongs))


def text(value: object) -> Cell:
    return Cell(text=str(value))


def number(value: float | None, shown: str) -> Cell:
    """`shown`, sorted by `value`; a dash, sorted last, where there is no value, and NaN where it is no number."""
    if value is None or not math.isfinite(value):
        return Cell(text=NONE if value is None else NO_NUMBER, sort=-math.inf)
    return Cell(text=shown, sort=value)


def score(value: float | None, metric: str) -> Cell:
    """A score in the unit that it is shown in (%, nats per token)."""
    if value is None:
        return number(None, "")
    scale, digits = as_shown(metric)
    return number(scale * value, f"{scale * value:.{digits}f}")


def estimated(estimate: Estimate | None, metric: str, *, mark: str = "", tone: str = "") -> Cell:
    """A difference with its 95 % interval where it has one."""
    if estimate is None or not math.isfinite(estimate.value):
        return number(None if estimate is None else math.nan, "")
    scale, digits = as_shown(metric)
    return Cell(
        text=signed(scale * estimate.value, digits),
        sort=scale * estimate.value,
        note=interval(estimate, metric),
        mark=mark,
        tone=tone,
    )


def interval(estimate: Estimate, metric: str) -> str:
    """`[−1.2, +0.4]`, nothing where the spread is not known."""
    scale, digits = as_shown(metric)
    return (
        f"[{signed(scale * estimate.low, digits)}, {signed(scale * estimate.high, digits)}]" if estimate.known else ""
    )


def tone_of(estimate: Estimate, metric: str) -> str:
    """better or worse, where the whole interval is."""
    if not estimate.excludes(0.0):
        return ""
    return "worse" if (estimate.value > 0) == lower_is_better(metric) else "better"


def signed(value: float, digits: int = 1) -> str:
    """With a true minus sign: +1.2, −0.4, 0.0."""
    shown = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(shown) == 0 else shown.replace("-", "−")


def p_value(p: float) -> Cell:
    return number(p, "< 0.001" if p < 0.001 else f"{p:.2g}")


def without_empty(table: Table) -> Table:
    """Without the columns in which no row has a value."""
    kept = [at for at in range(len(table.columns)) if any(row[at].text != NONE for row in table.rows)]
    return replace(
        table, columns=[table.columns[at] for at in kept], rows=[[row[at] for at in kept] for row in table.rows]
    )


def unit(metric: str) -> str:
    return "nats/token" if metric == NATS else "%" if as_shown(metric)[0] == 100 else metric
