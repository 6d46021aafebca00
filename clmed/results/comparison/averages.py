"""Gain and retention of rows: means over the benchmarks that all of them share."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from clmed.results import groups as grouping
from clmed.results.comparison.basis import Benchmark, basis
from clmed.results.comparison.measure import Measure, Part
from clmed.results.fronts import Point
from clmed.results.groups import Group
from clmed.results.statistics.uncertain import mean_of


def means(parts: Mapping[str, Part], averaged: Sequence[Benchmark]) -> dict[str, Part]:
    """Of each role, the mean over its benchmarks."""
    found = {}
    for role in ("gain", "retention"):
        some = [parts[b.name] for b in averaged if b.role == role and b.name in parts]
        if some:
            differences = [each.difference for each in some if each.difference is not None]
            found[role] = Part(
                change=mean_of([each.change for each in some]),
                forgetting=mean_of([each.forgetting for each in some]),
                difference=mean_of(differences) if len(differences) == len(some) else None,
                questions=sum(each.questions for each in some),
                apart=any(each.apart for each in some),
            )
    return found


@lru_cache(maxsize=1)  # a figure asks whether there is something to draw, then for it
def ends(groups: tuple[Group, ...]) -> tuple[dict[str, list[Point]], frozenset[str]]:
    """Label -> (gain, retention) of each of its seeds, in shares, and the benchmarks that these are means over.

    The very means that a comparison of these runs shows, so whoever was asked other questions is not among them.
    """
    runs = [run for group in groups for run in group.runs]
    against = grouping.reference(groups)
    by = basis(runs, against)
    measure = Measure(against, draws=1)
    found = {}
    for group in groups:
        parts = {b.name: part for b in by.averaged if (part := measure.part(group, b)) is not None}
        whole = means(parts, by.averaged)
        if len(whole) == 2 and not any(part.apart for part in whole.values()):
            gain, retention = (whole[role].change.seeds for role in ("gain", "retention"))
            if len(gain) == len(retention):
                found[group.label] = list(zip(gain, retention, strict=True))
    return found, frozenset(benchmark.name for benchmark in by.averaged)
