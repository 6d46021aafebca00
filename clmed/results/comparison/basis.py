"""What runs are compared by: the benchmarks that all measured, and of these the questions that all were asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clmed.results.answers import Answers, Texts, shared
from clmed.results.groups import Group
from clmed.results.metrics import is_accuracy, lower_is_better
from clmed.results.runs import Run
from clmed.results.statistics.paired import mean

MOST_READ = 300  # runs whose single answers are looked at: some 10 ms each
SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """keys: the questions that are compared, None where they are not known; macro: the score is the subjects' mean;
    apart: runs that were asked none of these questions.
    """

    name: str
    role: str
    metric: str
    questions: int
    keys: Texts | None = None
    macro: bool = False
    apart: frozenset[Path] = frozenset()

    @property
    def lower(self) -> bool:
        return lower_is_better(self.metric)


@dataclass(frozen=True, kw_only=True)
class Basis:
    """known: by name, all that was measured; averaged: those in accuracy that every run has; notes: what is not so."""

    known: dict[str, Benchmark]
    averaged: list[Benchmark]
    notes: list[str]


def basis(runs: Sequence[Run], against: Group) -> Basis:
    """against: whose questions count where runs have none in common."""
    # One that has no point after the base yet has nothing to be compared, and may lack benchmarks so far.
    usable = [run for run in runs if run.last and _has_base(run)] or [run for run in runs if run.whole]
    first = {id(run) for run in against.counted}
    known: dict[str, Benchmark] = {}
    baseless = [run.path.name for run in runs if run.whole and not _has_base(run)]
    notes = [f"no scores of the base in {some(baseless)}: no change is known"] if baseless else []
    for name in dict.fromkeys(name for run in usable for name in run.scores):
        measured = sorted((run for run in usable if name in run.scores), key=lambda run: id(run) not in first)
        scores = measured[0].scores[name]
        row = scores[min(scores)]
        having = [run for run in measured if has(run, name, row["metric"])]
        for lacking, why in (
            ([run for run in usable if name not in run.scores], f"{name} was not measured by"),
            (
                [run for run in measured if not has(run, name, row["metric"])],
                f"{name} has another metric than {row['metric']} in",
            ),
            ([run for run in measured if _has_base(run) and 0 not in run.scores[name]], f"{name}: no base score in"),
        ):
            if lacking:
                notes.append(f"{why} {some([run.path.name for run in lacking])}: it is left out of the averages")
        known[name] = Benchmark(name=name, role=row["role"], metric=row["metric"], questions=row.get("questions", 0))
        if len(usable) <= MOST_READ:
            known[name], told = _by_question(known[name], having)
            notes += [f"{name}: {each}" for each in told]
    if len(usable) > MOST_READ:
        notes.append(
            f"of more than {MOST_READ} runs no single answers are read, so intervals come from the scores alone: "
            "wider, and of perplexity none"
        )
    averaged = [
        b
        for b in known.values()
        if is_accuracy(b.metric) and all(has(run, b.name, b.metric) and 0 in run.scores[b.name] for run in usable)
    ]
    return Basis(known=known, averaged=averaged, notes=notes)


def _has_base(run: Run) -> bool:
    """A line of results.jsonl may have been damaged, and deleted."""
    return any(0 in points for points in run.scores.values())


def has(run: Run, name: str, metric: str) -> bool:
    """Whether it measured a benchmark, in this metric."""
    return any(row["metric"] == metric for row in run.scores.get(name, {}).values())


def _by_question(plain: Benchmark, runs: Sequence[Run]) -> tuple[Benchmark, list[str]]:
    """The benchmark with the questions that all were asked, and notes on what is not as one would wish.

    Whoever has no question in common with the first run, or with it and all those that share more with it, is apart.
    """
    notes = []
    scored = [run for run in runs if 0 in run.scores[plain.name]]
    kept = [(run, found) for run in scored if (found := run.answers(plain.name, 0)) is not None]
    if len(kept) < len(scored):
        without = [run.path.name for run in scored if all(run is not other for other, _ in kept)]
        notes.append(
            f"no answers of {some(without)}, whose intervals are made from the scores alone: wider, and of perplexity "
            "none"
        )
    if not kept:
        return plain, notes
    first, asked = kept[0]
    macro = _is_macro(asked, first.scores[plain.name][0]["score"])
    if macro is None:
        return plain, [*notes, "its score is no mean over answers, so intervals are made from the scores alone"]
    keys, apart = asked.keys, []
    for run, each in sorted(kept[1:], key=lambda pair: -len(shared([asked.keys, pair[1].keys]))):
        common = shared([keys, each.keys])
        if len(common):
            keys = common
        else:
            apart.append(run)
    if apart:
        names = some([run.path.name for run in apart])
        notes.append(f"no question in common with {first.path.name}: {names}, not averaged with others nor tested")
    if most := max((len(each) for run, each in kept if run not in apart and len(each) != len(keys)), default=0):
        notes.append(f"compared on the {len(keys):,} questions that all runs were asked, of up to {most:,}")
    paths = frozenset(run.path for run in apart)
    return replace(plain, questions=len(keys), keys=keys, macro=macro, apart=paths), notes


def _is_macro(answers: Answers, score: float) -> bool | None:
    """Whether a score is the mean over subjects rather than over questions; None if it is neither."""
    if answers.tokens is not None:
        return False if abs(answers.values.sum() / answers.tokens.sum() - score) < SAME else None
    if abs(answers.values.mean() - score) < SAME:
        return False
    return True if abs(mean(answers.values, answers.subjects) - score) < SAME else None


def some(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
