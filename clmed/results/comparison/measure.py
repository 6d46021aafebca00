"""The change and the forgetting of a row on each benchmark, and its difference to the reference, with their spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clmed.results.answers import Texts
from clmed.results.comparison.basis import Benchmark, has
from clmed.results.groups import Group
from clmed.results.metrics import is_accuracy
from clmed.results.runs import Run
from clmed.results.statistics.bootstrap import MANY_ROWS, Floats, generator, question_draws, ratio_draws
from clmed.results.statistics.paired import mean
from clmed.results.statistics.uncertain import Uncertain


@dataclass(frozen=True, kw_only=True)
class Part:
    """A row on one benchmark: now - base; how far below the best earlier point; its change minus the reference's.

    difference is over the pairs of equal seeds, None where there is none; apart: it was asked other questions than the
    reference, all by its own scores.
    """

    change: Uncertain
    forgetting: Uncertain
    difference: Uncertain | None
    questions: int
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Curves:
    """A run on one benchmark, over the questions that are compared: (questions,) at the base, the best point, now."""

    base: Floats
    best: Floats
    now: Floats
    sizes: Floats | None
    strata: Texts | None
    right_or_wrong: bool

    @property
    def change(self) -> Floats:
        return self.now - self.base

    def mean(self, values: Floats) -> float:
        if self.sizes is not None:
            return float(values.sum() / self.sizes.sum())
        return mean(values, self.strata)


class Measure:
    """Parts of rows against a reference, whose answers are read once."""

    def __init__(self, reference: Group, draws: int) -> None:
        self.reference, self.draws = reference, draws
        self._known: dict[tuple[str, str], Curves | None] = {}

    def part(self, group: Group, benchmark: Benchmark) -> Part | None:
        """None where the group has no change on this benchmark."""
        runs = _measured(group, benchmark)
        if not runs:
            return None
        together = [run for run in runs if run.path not in benchmark.apart]
        if not together:
            asked = runs[0].scores[benchmark.name][0].get("questions", 0)
            return replace(_by_formula(runs, [], replace(benchmark, questions=asked)), apart=True)
        runs = together
        pairs = [] if group is self.reference else _pairs(runs, self.reference, benchmark)
        own = {run.path: _curves(run, benchmark) for run in runs}
        other = {run.path: self._reference(run, benchmark) for _, run in pairs}
        if None in own.values() or None in other.values():
            return _by_formula(runs, pairs, benchmark)
        found, others = ({path: each for path, each in some.items() if each} for some in (own, other))
        apart = [found[one.path].change - others[two.path].change for one, two in pairs]
        trained = any(run.end.get("all_tokens", 1) for run in runs)
        return _by_draws(list(found.values()), apart, benchmark, self.draws, trained)

    def _reference(self, run: Run, benchmark: Benchmark) -> Curves | None:
        key = str(run.path), benchmark.name
        if key not in self._known:
            self._known[key] = _curves(run, benchmark)
        return self._known[key]


def _by_draws(
    own: Sequence[Curves], apart: list[Floats], benchmark: Benchmark, draws: int, trained: bool = True
) -> Part:
    changes = [each.change for each in own]
    falls = [(each.now - each.best) * (1 if benchmark.lower else -1) for each in own]
    values = np.column_stack([np.mean(each, axis=0) for each in (changes, falls, apart) if len(each)])
    rng, some, normal = generator(0, benchmark.name), own[0], True
    if some.sizes is not None:
        drawn = ratio_draws(values, some.sizes, rng=rng, draws=draws)
        normal = len(values) >= MANY_ROWS
    else:
        # No question can be answered differently by the base itself.
        answers = len(own) if trained and all(each.right_or_wrong for each in own) else 0
        drawn = question_draws(values, some.strata, rng=rng, draws=draws, answers=answers)

    def uncertain(column: int, seeds: list[Floats]) -> Uncertain:
        means, own = tuple(some.mean(each) for each in seeds), drawn[:, column]
        known = own if np.isfinite(own).all() else math.nan  # nothing is of a single row of text
        return Uncertain(value=float(np.mean(means)), questions=known, seeds=means, normal=normal)

    return Part(
        change=uncertain(0, changes),
        forgetting=uncertain(1, falls),
        difference=uncertain(2, apart) if apart else None,
        questions=benchmark.questions,
    )


def _by_formula(runs: Sequence[Run], pairs: Sequence[tuple[Run, Run]], benchmark: Benchmark) -> Part:
    """From the scores: as if the questions at two points were different ones, which is never too narrow."""
    rows = [run.scores[benchmark.name] for run in runs]
    start = [each[0]["score"] for each in rows]
    now = [each[run.last]["score"] for each, run in zip(rows, runs, strict=True)]
    best = [each[_best(run, benchmark)]["score"] for each, run in zip(rows, runs, strict=True)]
    sign = 1 if benchmark.lower else -1

    def uncertain(seeds: list[float], *measured: float) -> Uncertain:
        variance = math.nan
        if is_accuracy(benchmark.metric) and benchmark.questions:
            variance = sum(score * (1 - score) for score in measured) / benchmark.questions
        return Uncertain(value=sum(seeds) / len(seeds), questions=variance, seeds=tuple(seeds))

    apart = [_change(one, benchmark) - _change(two, benchmark) for one, two in pairs]
    others = [two.scores[benchmark.name][two.last]["score"] for _, two in pairs]
    return Part(
        change=uncertain([n - each for n, each in zip(now, start, strict=True)], _mean(now), start[0]),
        forgetting=uncertain([sign * (n - b) for n, b in zip(now, best, strict=True)], _mean(now), _mean(best)),
        difference=uncertain(apart, _mean(now), _mean(others)) if apart else None,
        questions=benchmark.questions,
    )


def _measured(group: Group, benchmark: Benchmark) -> list[Run]:
    """The runs of a group that were measured at the base and later."""
    return [
        run
        for run in group.counted
        if run.last
        and {0, run.last} <= run.scores.get(benchmark.name, {}).keys()
        and has(run, benchmark.name, benchmark.metric)
    ]


def _pairs(runs: Sequence[Run], against: Group, benchmark: Benchmark) -> list[tuple[Run, Run]]:
    """Each run with the reference's of the same seed; single runs with each other, whatever their seeds."""
    others = [run for run in _measured(against, benchmark) if run.path not in benchmark.apart]
    if against.needed == 1:
        return [(runs[0], others[0])] if others else []
    return [(run, other) for run in runs for other in others if run.seed == other.seed]


def _change(run: Run, benchmark: Benchmark) -> float:
    scores = run.scores[benchmark.name]
    return float(scores[run.last]["score"] - scores[0]["score"])


def _best(run: Run, benchmark: Benchmark) -> int:
    """The best point before the last one; one without a number only where there is no other."""
    earlier = {point: row["score"] for point, row in run.scores[benchmark.name].items() if point < run.last}
    scores = {point: score for point, score in earlier.items() if math.isfinite(score)} or earlier
    return (min if benchmark.lower else max)(scores, key=lambda point: scores[point])


def _curves(run: Run, benchmark: Benchmark) -> Curves | None:
    """None where the answers are not known."""
    if benchmark.keys is None:
        return None
    points = 0, _best(run, benchmark), run.last  # the best is often the base
    kept = {point: run.answers(benchmark.name, point) for point in dict.fromkeys(points)}
    whole = {
        point: each.only(benchmark.keys)
        for point, each in kept.items()
        if each is not None and each.holds(benchmark.keys)
    }
    if len(whole) < len(kept):
        return None
    base, best, now = (whole[point] for point in points)
    return Curves(
        base=base.values,
        best=best.values,
        now=now.values,
        sizes=base.tokens,
        strata=base.subjects if benchmark.macro else None,
        right_or_wrong=all(each.right_or_wrong for each in whole.values()),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
