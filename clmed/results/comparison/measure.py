"""The change and the forgetting of a row on each benchmark, and its difference to the reference, with their spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clmed.results.answers import Answers, Texts, shared
from clmed.results.comparison.groups import Group
from clmed.results.comparison.reading import Read
from clmed.results.metrics import is_accuracy, lower_is_better
from clmed.results.statistics.bootstrap import Floats, generator, question_draws, ratio_draws
from clmed.results.statistics.paired import mean
from clmed.results.statistics.uncertain import Uncertain

SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """keys: the questions that are compared, None where they are not known; macro: the score is the subjects' mean;
    comparable: whether runs may be put beside each other, who were asked some question in common.
    """

    name: str
    role: str
    metric: str
    questions: int
    keys: Texts | None = None
    macro: bool = False
    comparable: bool = True

    @property
    def lower(self) -> bool:
        return lower_is_better(self.metric)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A row on one benchmark: now - base; how far below the best earlier point; its change minus the reference's.

    difference is over the pairs of equal seeds, None where there is none.
    """

    change: Uncertain
    forgetting: Uncertain
    difference: Uncertain | None
    questions: int


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


def benchmarks(runs: Sequence[Read], *, answers: bool) -> tuple[dict[str, Benchmark], list[str]]:
    """What the runs measured, and notes on what of it is compared. answers: whether to look at single questions."""
    found: dict[str, Benchmark] = {}
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.scores):
        having = [run for run in runs if name in run.scores]
        if len(having) < len(runs):
            missing = [run.path.name for run in runs if name not in run.scores]
            notes.append(f"{name} was not measured by {_some(missing)}: it is left out of the averages")
        scores = having[0].scores[name]
        row = scores[min(scores)]
        found[name] = Benchmark(name=name, role=row["role"], metric=row["metric"], questions=row.get("questions", 0))
        if answers:
            found[name], note = _by_question(found[name], having)
            notes += [f"{name}: {each}" for each in note]
    return found, notes


def _by_question(plain: Benchmark, runs: Sequence[Read]) -> tuple[Benchmark, list[str]]:
    """The benchmark with the questions that all were asked, and notes on what is not as one would wish."""
    notes = []
    kept = [(run, found) for run in runs if (found := run.answers(plain.name, 0)) is not None]
    if len(kept) < len(runs):
        without = [run.path.name for run in runs if all(run is not other for other, _ in kept)]
        notes.append(f"no answers of {_some(without)}, whose intervals are made from the scores alone, wider")
    if not kept:
        return plain, notes
    keys = shared([each.keys for _, each in kept])
    if not len(keys):
        return replace(plain, comparable=False), [*notes, "the runs were asked no question in common: not compared"]
    run, asked = kept[0]
    macro = _is_macro(asked, run.scores[plain.name][0]["score"])
    if macro is None:
        return plain, [*notes, "its score is no mean over answers, so intervals are made from the scores alone"]
    if any(len(each) != len(keys) for _, each in kept):
        most = max(len(each) for _, each in kept)
        notes.append(f"compared on the {len(keys):,} questions that all runs were asked, of up to {most:,}")
    return replace(plain, questions=len(keys), keys=keys, macro=macro), notes


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
        pairs = [] if group is self.reference or not benchmark.comparable else _pairs(runs, self.reference, benchmark)
        own = {run.path: _curves(run, benchmark) for run in runs}
        other = {run.path: self._reference(run, benchmark) for _, run in pairs}
        if None in own.values() or None in other.values():
            return _by_formula(runs, pairs, benchmark)
        found, others = ({path: each for path, each in some.items() if each} for some in (own, other))
        apart = [found[one.path].change - others[two.path].change for one, two in pairs]
        trained = any(run.end.get("all_tokens", 1) for run in runs)
        return _by_draws(list(found.values()), apart, benchmark, self.draws, trained)

    def _reference(self, run: Read, benchmark: Benchmark) -> Curves | None:
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
    rng, some = generator(0, benchmark.name), own[0]
    if some.sizes is not None:
        drawn = ratio_draws(values, some.sizes, rng=rng, draws=draws)
    else:
        # No question can be answered differently by the base itself.
        answers = len(own) if trained and all(each.right_or_wrong for each in own) else 0
        drawn = question_draws(values, some.strata, rng=rng, draws=draws, answers=answers)

    def uncertain(column: int, seeds: list[Floats]) -> Uncertain:
        means = tuple(some.mean(each) for each in seeds)
        return Uncertain(value=float(np.mean(means)), questions=drawn[:, column], seeds=means)

    return Part(
        change=uncertain(0, changes),
        forgetting=uncertain(1, falls),
        difference=uncertain(2, apart) if apart else None,
        questions=benchmark.questions,
    )


def _by_formula(runs: Sequence[Read], pairs: Sequence[tuple[Read, Read]], benchmark: Benchmark) -> Part:
    """From the scores: as if the questions at two points were different ones, which is never too narrow."""
    scores = [{point: row["score"] for point, row in run.scores[benchmark.name].items()} for run in runs]
    now = [each[run.last] for each, run in zip(scores, runs, strict=True)]
    best = [each[_best(run, benchmark)] for each, run in zip(scores, runs, strict=True)]
    sign = 1 if benchmark.lower else -1

    def uncertain(seeds: list[float], *measured: float) -> Uncertain:
        variance = math.nan
        if is_accuracy(benchmark.metric) and benchmark.questions:
            variance = sum(score * (1 - score) for score in measured) / benchmark.questions
        return Uncertain(value=sum(seeds) / len(seeds), questions=variance, seeds=tuple(seeds))

    apart = [_change(one, benchmark) - _change(two, benchmark) for one, two in pairs]
    others = [two.scores[benchmark.name][two.last]["score"] for _, two in pairs]
    return Part(
        change=uncertain([n - each[0] for n, each in zip(now, scores, strict=True)], _mean(now), scores[0][0]),
        forgetting=uncertain([sign * (n - b) for n, b in zip(now, best, strict=True)], _mean(now), _mean(best)),
        difference=uncertain(apart, _mean(now), _mean(others)) if apart else None,
        questions=benchmark.questions,
    )


def _measured(group: Group, benchmark: Benchmark) -> list[Read]:
    """The runs of a group that were measured at the base and later."""
    return [run for run in group.counted if run.last and {0, run.last} <= run.scores.get(benchmark.name, {}).keys()]


def _pairs(runs: Sequence[Read], against: Group, benchmark: Benchmark) -> list[tuple[Read, Read]]:
    """Each run with the reference's of the same seed; single runs with each other, whatever their seeds."""
    others = _measured(against, benchmark)
    if against.needed == 1:
        return [(runs[0], others[0])] if others else []
    return [(run, other) for run in runs for other in others if run.seed == other.seed]


def _change(run: Read, benchmark: Benchmark) -> float:
    scores = run.scores[benchmark.name]
    return float(scores[run.last]["score"] - scores[0]["score"])


def _best(run: Read, benchmark: Benchmark) -> int:
    """The best point before the last one."""
    scores = {point: row["score"] for point, row in run.scores[benchmark.name].items() if point < run.last}
    return (min if benchmark.lower else max)(scores, key=lambda point: scores[point])


def _curves(run: Read, benchmark: Benchmark) -> Curves | None:
    """None where the answers are not known."""
    if benchmark.keys is None:
        return None
    kept = [run.answers(benchmark.name, point) for point in (0, _best(run, benchmark), run.last)]
    whole = [each for each in kept if each is not None and each.holds(benchmark.keys)]
    if len(whole) < len(kept):
        return None
    base, best, now = (each.only(benchmark.keys) for each in whole)
    return Curves(
        base=base.values,
        best=best.values,
        now=now.values,
        sizes=base.tokens,
        strata=base.subjects if benchmark.macro else None,
        right_or_wrong=all(each.right_or_wrong for each in whole),
    )


def _is_macro(answers: Answers, score: float) -> bool | None:
    """Whether a score is the mean over subjects rather than over questions; None if it is neither."""
    if answers.tokens is not None:
        return False if abs(answers.values.sum() / answers.tokens.sum() - score) < SAME else None
    if abs(answers.values.mean() - score) < SAME:
        return False
    return True if abs(mean(answers.values, answers.subjects) - score) < SAME else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
