"""What a comparison holds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clmed.results.statistics.estimate import Estimate
from clmed.results.statistics.verdicts import Verdict

Mark = Literal["", "better", "worse"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A row on one benchmark; accuracies as shares of 1, perplexity in nats per token.

    change: now minus base; forgetting: how far below the best earlier point (positive is forgotten); difference: the
    change minus the reference's, of the runs with equal seeds, and p: its p-value, corrected by Holm over all rows and
    primary benchmarks; mark: what follows from it; verdict: of a retention benchmark in accuracy; both only where
    `primary`, and where there are seeds enough.
    """

    role: str
    metric: str
    questions: int
    primary: bool
    change: Estimate
    forgetting: Estimate
    difference: Estimate | None = None
    p: float | None = None
    mark: Mark = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, or all seeds of one strategy (`by="strategy"`).

    runs, seeds: those that count, of several the complete ones if there are any; needed: seeds that a statement about
    the strategy rests on (1 for a run: it speaks of this run only); state: complete, running, killed, stopped, damaged,
    or how many are what; gain, retention, forgetting: means over the benchmarks in accuracy that all rows share, None
    where there are none; gain_mark, retention_mark, verdict (of retention): as in `Cell`, corrected over all rows and
    these two; tokens: of the domain; flops: of all passes; seconds: of training; these four are means over the seeds.
    trivial: had without a method; on_front, on_trivial_front: no other row (no other trivial row) has as much of gain
    and retention and more of one; mismatches: why this is no fair comparison with the reference.
    """

    label: str
    strategy: str
    runs: tuple[Path, ...]
    seeds: tuple[int, ...]
    needed: int
    state: str
    reference: bool = False
    trivial: bool = False
    cells: Mapping[str, Cell]
    gain: Estimate | None = None
    retention: Estimate | None = None
    forgetting: Estimate | None = None
    gain_mark: Mark = ""
    retention_mark: Mark = ""
    verdict: Verdict | None = None
    tokens: float | None = None
    all_tokens: float | None = None
    flops: float | None = None
    seconds: float | None = None
    on_front: bool = False
    on_trivial_front: bool = False
    mismatches: tuple[str, ...] = ()

    @property
    def enough(self) -> bool:
        """Whether there are seeds enough for a statement."""
        return len(self.runs) >= self.needed


def columns_of(benchmarks: Sequence[str], others: Collection[str], endings: Sequence[str]) -> dict[str, str]:
    """Benchmark -> what its columns begin with in a table: its name, behind "benchmark:" where others are called alike.

    others: the table's other columns; endings: what follows the beginning (`_low`), "" among them.
    """
    found: dict[str, str] = {}
    taken = set(others)
    for name in benchmarks:
        start = name
        while not taken.isdisjoint(start + ending for ending in endings):
            start = f"benchmark:{start}"
        found[name] = start
        taken |= {start + ending for ending in endings}
    return found


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """rows: in the order given, the reference where it stands; notes: what was left out, and why, in sentences."""

    by: Literal["run", "strategy"]
    margin: float
    reference: str
    benchmarks: tuple[str, ...]
    primary: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
