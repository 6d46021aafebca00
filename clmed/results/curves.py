"""What a figure of several runs shows: runs grouped by their seeds, panels, and the curves in each panel."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clmed.errors import UserError
from clmed.results.metrics import NATS, WHOLE, as_shown, matrix, primary_metric
from clmed.results.rundir import Row, RunDirectory
from clmed.results.table import categories, fold

LABEL_WIDTH = 14  # characters on a line of a label


@dataclass(frozen=True, kw_only=True)
class Run:
    path: Path

    @cached_property
    def directory(self) -> RunDirectory:
        return RunDirectory.open(self.path)

    @cached_property
    def rows(self) -> list[Row]:
        rows = self.directory.results()
        if not rows:
            raise UserError(f"{self.path} holds no results yet ({self.state}); plot it after its first measurement.")
        return rows

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.directory.config()

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @property
    def state(self) -> str:
        # A killed run could not say so: it stays "running".
        state = self.directory.status()["state"]
        return "unfinished" if state == "running" else state

    @property
    def stream(self) -> dict[str, int]:
        """Experience -> domain tokens at its end (or so far)."""
        return {row["experience"]: row["tokens"] for row in self.rows if row["point"] > 0}

    def curve(self, benchmark: str, category: str = WHOLE) -> list[tuple[float, float]]:
        """(tokens, score) at each point; accuracies in %. What is not finite is left out."""
        metric = primary_metric(self.rows, benchmark)
        tokens = {row["point"]: row["tokens"] for row in self.rows}
        points = matrix(self.rows).get((benchmark, category, metric), {})
        scale, _ = as_shown(metric)
        return [(tokens[point], scale * score) for point, score in points.items() if math.isfinite(score)]


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
        return short if len(short) <= LABEL_WIDTH else f"{fold(self.name, LABEL_WIDTH)}\n{note}".rstrip()


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


@dataclass(frozen=True, kw_only=True)
class Panel:
    benchmark: str
    role: str
    shots: int
    metric: str

    @property
    def note(self) -> str:
        return self.role if self.metric == NATS else f"{self.role}, {self.shots}-shot"


def panels(runs: Iterable[Run]) -> list[Panel]:
    """The benchmarks of all runs, gain before retention, else in the order measured."""
    found: dict[str, Panel] = {}
    for run in runs:
        for row in run.rows:
            name = row["benchmark"]
            if name not in found:
                metric = primary_metric(run.rows, name)
                found[name] = Panel(benchmark=name, role=row["role"], shots=row["shots"] or 0, metric=metric)
    return sorted(found.values(), key=lambda panel: panel.role != "gain")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One label and its lines: a line for each seed. `number` chooses the style; `whole` is false for a category."""

    label: str
    lines: tuple[list[tuple[float, float]], ...]
    number: int
    whole: bool = True

    @property
    def end(self) -> tuple[float, float]:
        """Where the label belongs: the furthest tokens, the mean of the last scores."""
        last = [line[-1] for line in self.lines]
        return max(tokens for tokens, _ in last), sum(score for _, score in last) / len(last)

    @property
    def bases(self) -> set[float]:
        return {round(line[0][1], 6) for line in self.lines if line[0][0] == 0}


def curves(panel: Panel, grouped: Sequence[Group]) -> list[Curve]:
    """A curve for each group with scores in this panel; with a single run also one for each of its few categories."""
    result = []
    for number, group in enumerate(grouped):
        lines = tuple(line for run in group.runs if (line := run.curve(panel.benchmark)))
        if lines:
            result.append(Curve(label=group.label, lines=lines, number=number))
    if len(grouped) == 1 and len(grouped[0].runs) == 1:
        run = grouped[0].runs[0]
        for number, category in enumerate(categories(run.rows, panel.benchmark), start=1):
            if line := run.curve(panel.benchmark, category):
                result.append(Curve(label=fold(category, LABEL_WIDTH), lines=(line,), number=number, whole=False))
    return result
