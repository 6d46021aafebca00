"""What figures are drawn from: runs, and groups of runs that differ in their seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clmed.results.metrics import WHOLE, as_shown, matrix, primary_metric
from clmed.results.rundir import VARIANTS, Row, RunDirectory
from clmed.results.table import fold

LABEL_WIDTH, LONGEST = 14, 22  # characters on a line of a label, if it can be broken and if not


@dataclass(frozen=True, kw_only=True)
class Run:
    path: Path

    @cached_property
    def directory(self) -> RunDirectory:
        return RunDirectory.open(self.path)

    @cached_property
    def rows(self) -> list[Row]:
        return self.directory.results()

    @cached_property
    def variants(self) -> list[Row]:
        return self.directory.results(VARIANTS)

    @cached_property
    def training(self) -> list[Row]:
        return self.directory.training()

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.directory.config()

    @cached_property
    def scores(self) -> dict[tuple[str, str, str], dict[int, float]]:
        """R: (benchmark, category, metric) -> point -> score."""
        return matrix(self.rows)

    @cached_property
    def benchmarks(self) -> set[str]:
        return {benchmark for benchmark, _, _ in self.scores}

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @property
    def state(self) -> str:
        # A killed run could not say so: it stays "running".
        state = self.directory.status()["state"]
        return "unfinished" if state == "running" else state

    @cached_property
    def stream(self) -> dict[str, int]:
        """Experience -> domain tokens at its end (or so far)."""
        return {row["experience"]: row["tokens"] for row in self.rows if row["point"] > 0}

    @property
    def words(self) -> Iterable[str]:
        """Every name that a figure may show."""
        for row in self.rows:
            yield from (row["benchmark"], row["experience"], row["category"])

    def measured(self, benchmark: str, category: str = WHOLE) -> dict[int, tuple[float, float]]:
        """Point -> (tokens, score); accuracies in %. What is not finite is left out."""
        metric = primary_metric(self.rows, benchmark)
        tokens = {row["point"]: row["tokens"] for row in self.rows}
        points = self.scores.get((benchmark, category, metric), {})
        scale, _ = as_shown(metric)
        return {point: (tokens[point], scale * score) for point, score in points.items() if math.isfinite(score)}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in their seeds only: one colour, one label."""

    name: str
    runs: tuple[Run, ...]

    @cached_property
    def label(self) -> str:
        """The name, how many seeds, and what is not complete; broken into lines."""
        notes = [f"{len(self.runs)} seeds"] if len(self.runs) > 1 else []
        for state in ("unfinished", "stopped"):
            if count := sum(run.state == state for run in self.runs):
                notes.append(state if len(self.runs) == 1 else f"{count} {state}")
        note = f"({', '.join(notes)})" if notes else ""
        short = f"{self.name} {note}".rstrip()
        return short if len(short) <= LABEL_WIDTH else f"{folded(self.name)}\n{note}".rstrip()


def folded(name: str) -> str:
    """A label in lines; what cannot be broken and is too long ends in an ellipsis."""
    lines = fold(name, LABEL_WIDTH).split("\n")
    return "\n".join(line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in lines)


def groups(runs: Sequence[Run]) -> list[Group]:
    """Group by name. Runs of one name *and* seed differ in something else: they stay apart and go by their paths."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.name, []).append(run)
    result = []
    for name, same in by_name.items():
        if len({run.config.get("seed", 0) for run in same}) == len(same):
            result.append(Group(name=name, runs=tuple(same)))
        else:
            result += [Group(name=str(run.path), runs=(run,)) for run in same]
    return result


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean over seeds (Student's t), from three values on; fewer tell too little."""
    if len(values) < 3:
        return None
    import numpy as np
    from scipy.special import stdtrit

    found = np.asarray(values, dtype=float)
    half = stdtrit(len(found) - 1, 0.975) * found.std(ddof=1) / math.sqrt(len(found))
    return float(found.mean() - half), float(found.mean() + half)
