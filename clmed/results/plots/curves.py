"""The curves in the panels of the forgetting figure."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from clmed.results.groups import Group
from clmed.results.metrics import NATS, primary_metrics
from clmed.results.plots.runs import folded, interval, label, measured
from clmed.results.runs import Run
from clmed.results.table import categories

Line = list[tuple[float, float]]


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
        metrics = primary_metrics(run.rows)
        for row in run.rows:
            name = row["benchmark"]
            if name not in found:
                metric = metrics[name]
                found[name] = Panel(benchmark=name, role=row["role"], shots=row["shots"] or 0, metric=metric)
    return sorted(found.values(), key=lambda panel: panel.role != "gain")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One label and its seeds. `number` chooses the style; `whole` is false for a category.

    seeds: of each seed, point -> (tokens, score).
    """

    label: str
    seeds: tuple[dict[int, tuple[float, float]], ...]
    number: int
    whole: bool = True

    @cached_property
    def lines(self) -> list[Line]:
        return [list(seed.values()) for seed in self.seeds]

    @cached_property
    def _common(self) -> list[list[tuple[float, float]]]:
        """What the seeds have at each point that all of them have: another mean would jump where a seed ends."""
        points = [point for point in self.seeds[0] if all(point in seed for seed in self.seeds)]
        return [[seed[point] for seed in self.seeds] for point in points]

    @cached_property
    def mean(self) -> Line:
        """(tokens, score), means over the seeds."""
        return [tuple(map(statistics.fmean, zip(*found, strict=True))) for found in self._common]  # type: ignore[misc]

    @cached_property
    def band(self) -> list[tuple[float, float, float]]:
        """(tokens, low, high) of the mean's 95 % interval at each point; empty with fewer than three seeds."""
        result = []
        for (tokens, _), found in zip(self.mean, self._common, strict=True):
            if bounds := interval([score for _, score in found]):
                result.append((tokens, *bounds))
        return result

    @property
    def end(self) -> tuple[float, float]:
        """Where the label belongs: the end of the mean or, without a band, the furthest tokens and mean last score."""
        if self.band:
            return self.mean[-1]
        last = [line[-1] for line in self.lines]
        return max(tokens for tokens, _ in last), statistics.fmean(score for _, score in last)

    @property
    def bases(self) -> set[float]:
        return {round(line[0][1], 6) for line in self.lines if line[0][0] == 0}


def curves(panel: Panel, grouped: Sequence[Group]) -> list[Curve]:
    """A curve for each group with scores in this panel; with a single run also one for each of its few categories."""
    result = []
    for number, group in enumerate(grouped):
        seeds = tuple(seed for run in group.runs if (seed := measured(run, panel.benchmark)))
        if seeds:
            result.append(Curve(label=label(group), seeds=seeds, number=number))
    if len(grouped) == 1 and len(grouped[0].runs) == 1:
        run = grouped[0].runs[0]
        for number, category in enumerate(categories(run.rows, panel.benchmark), start=1):
            if seed := measured(run, panel.benchmark, category):
                result.append(Curve(label=folded(category), seeds=(seed,), number=number, whole=False))
    return result
