"""What a comparison claims: better or worse than the reference, retained or forgotten, corrected for their number.

Two families are corrected by Holm, each over all rows: gain and retention as a whole, and the primary benchmarks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from clmed.results.comparison.basis import Benchmark
from clmed.results.comparison.measure import Part
from clmed.results.comparison.rows import Cell, Mark, Row
from clmed.results.metrics import is_accuracy, lower_is_better
from clmed.results.statistics.estimate import Estimate
from clmed.results.statistics.verdicts import ALPHA, Verdict, holm, verdict


@dataclass(frozen=True, kw_only=True)
class Claim:
    """p-values of a row, None where nothing is tested: "as the reference", "lost more than the margin", "lost nothing".

    count, of: what the spread rests on most, and how much of it there is.
    """

    row: int
    family: Literal["overall", "benchmark"]
    name: str
    change: Estimate
    difference: float | None
    different: float | None
    lost: float | None
    kept: float | None
    count: int
    of: Literal["questions", "seeds"]


def claimed(
    row: int,
    needed: int,
    means: Mapping[str, Part],
    primary: Mapping[str, Part],
    known: Mapping[str, Benchmark],
    margin: float,
    comparable: bool,
) -> list[Claim]:
    """The claims of a row, as far as there are seeds enough; none of what has questions of its own, or no number.

    comparable: both it and the reference have come to their ends, so that better and worse mean something.
    """
    wholes: list[tuple[Literal["overall", "benchmark"], str, Part, bool]] = [
        ("overall", name, part, name == "retention") for name, part in means.items()
    ]
    wholes += [
        ("benchmark", name, part, known[name].role == "retention" and is_accuracy(known[name].metric))
        for name, part in primary.items()
    ]
    found = []
    for family, name, part, may_be_retained in wholes:
        if part.apart or not math.isfinite(part.change.value):
            continue
        change, difference = part.change, part.difference
        judged = may_be_retained and len(change.seeds) >= needed
        seeds = () if difference is None or not math.isfinite(difference.value) else difference.seeds
        paired = comparable and len(seeds) >= needed
        by_seeds = change.by_seeds
        found.append(
            Claim(
                row=row,
                family=family,
                name=name,
                change=change.estimate(),
                difference=None if difference is None else difference.value,
                different=difference.p_two_sided() if difference is not None and paired else None,
                lost=change.p_above(-margin) if judged else None,
                kept=(-change).p_above(0.0) if judged else None,
                count=len(change.seeds) if by_seeds else part.questions,
                of="seeds" if by_seeds else "questions",
            )
        )
    return found


def judged(rows: Sequence[Row], claims: Sequence[Claim], margin: float) -> list[Row]:
    """The rows with what may be claimed of them."""
    said: dict[int, dict[str, Any]] = {}
    cells: dict[int, dict[str, Cell]] = {}
    for family in ("overall", "benchmark"):
        of = [claim for claim in claims if claim.family == family]
        different, lost, kept = (_corrected(of, test) for test in ("different", "lost", "kept"))
        for index, claim in enumerate(of):
            row, p = rows[claim.row], different.get(index)
            judgement = _verdict(claim, lost.get(index), kept.get(index), margin, len(lost))
            if family == "benchmark":
                cell = row.cells[claim.name]
                mark = _mark(claim.difference, p, lower_is_better(cell.metric))
                own = cells.setdefault(claim.row, dict(row.cells))
                own[claim.name] = replace(cell, p=p, mark=mark, verdict=judgement)
            else:
                whole = said.setdefault(claim.row, {})
                whole[f"{claim.name}_mark"] = _mark(claim.difference, p)
                if claim.name == "retention":
                    whole["verdict"] = judgement
    return [replace(row, cells=cells.get(number, row.cells), **said.get(number, {})) for number, row in enumerate(rows)]


def _mark(difference: float | None, p: float | None, lower: bool = False) -> Mark:
    if p is None or difference is None or p > ALPHA:
        return ""
    return "worse" if (difference > 0) == lower else "better"


def _verdict(claim: Claim, lost: float | None, kept: float | None, margin: float, tests: int) -> Verdict | None:
    if lost is None or kept is None:
        return None
    # An interval of 95 % has 2.5 % beyond either end.
    retained, forgotten = lost <= ALPHA / 2, kept <= ALPHA / 2
    return verdict(
        claim.change,
        claim.count,
        margin=margin,
        of=claim.of,
        retained=retained,
        forgotten=forgotten,
        tests=tests,
    )


def _corrected(claims: Sequence[Claim], test: str) -> dict[int, float]:
    """Place among the claims -> p-value, of those that were tested."""
    tested = {i: p for i, claim in enumerate(claims) if (p := getattr(claim, test)) is not None}
    return dict(zip(tested, holm(list(tested.values())), strict=True))
