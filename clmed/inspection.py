"""What the data of an experiment hold, before anything is trained on them: the report of `clmed data inspect`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import dropwhile
from typing import Any

from clmed.config import ExperimentConfig, resolve
from clmed.data import answers
from clmed.data.cleaning import Searched, Touch, Watch, copies_in, left_out, touches_in, unseen
from clmed.data.contamination import Asked
from clmed.data.corpus import Corpus
from clmed.data.duplicates import Duplicate
from clmed.data.sources import place
from clmed.data.statistics import source_statistics
from clmed.evaluation.benchmarks import Benchmark
from clmed.evaluation.contamination import asked, asked_by_tasks, contaminated, trained_sources, whole_exams
from clmed.training.model import load_tokenizer

EXAMPLES = 3
KINDS = ("copies_within", "copies_of_other_sources", "near_copies")

Report = dict[str, Any]


def inspect(config: ExperimentConfig, watch: Watch = unseen) -> Report:
    """Everything that is known of the data, as plain data (the keys are those of `clmed data inspect --json`).

    Counts and lengths are of what a run reads: without what `deduplicate` and `decontaminate` drop. Duplicates and
    questions are those of the files, dropped or not.
    """
    benchmarks = whole_exams(config)
    searched = Searched([*asked(benchmarks), *asked_by_tasks(config)])
    dropped = left_out(config, searched, watch)
    copies = copies_in(config, list(config.data), watch)
    touches = {name: touches_in(config, name, searched, watch) for name in config.data}
    corpus = Corpus.of(config, load_tokenizer(config), config.training.sequence_length, dropped)
    sources = {
        name: {
            **_counts(corpus, name),
            "dropped": len(dropped.get(name, ())),
            "duplicates": _duplicates(config, name, copies[name]),
            "documents_touching": len({touch.number for touch in touches[name]}),
            "questions": _questions(config, name, searched.questions, touches[name]),
        }
        for name in config.data
    }
    report: Report = {
        "experiment": config.name,
        "row_tokens": corpus.length,
        "sources": sources,
        "benchmarks": _benchmarks(config, searched, touches),
        "answers": list(_answers(config, benchmarks)),
    }
    return report | {"warnings": list(_warnings(config, report))}


def _counts(corpus: Corpus, name: str) -> dict[str, Any]:
    found = source_statistics(corpus, name)
    of = ("documents", "tokens", "supervised", "bytes", "rows", "cut", "untaught")
    return {
        **{key: found.total(key) for key in of},
        "parts": {part: counts.documents for part, counts in found.parts.items()},
        "without_text": found.skipped,
        "longest": found.longest,
        "lengths": [list(octave) for octave in dropwhile(lambda octave: not octave[2], found.histogram)],
    }


def _place(config: ExperimentConfig, name: str, number: int) -> str:
    return place(config.data[name], resolve(config, config.data[name].path), number)


def _duplicates(config: ExperimentConfig, name: str, copies: list[Duplicate]) -> dict[str, Any]:
    def example(copy: Duplicate) -> dict[str, Any]:
        of = _place(config, *copy.of) if copy.of else None
        return {"at": _place(config, name, copy.number), "of": of, "share": round(copy.share, 3)}

    whole = [copy for copy in copies if copy.of is not None]
    near = [copy for copy in copies if copy.of is None]
    return {
        "copies_within": sum(copy.of is not None and copy.of[0] == name for copy in whole),
        "copies_of_other_sources": sum(copy.of is not None and copy.of[0] != name for copy in whole),
        "near_copies": len(near),
        "examples": [example(copy) for copy in (*whole[:EXAMPLES], *near[:EXAMPLES])],
    }


def _questions(config: ExperimentConfig, name: str, asked: Sequence[Asked], touches: list[Touch]) -> dict[str, Any]:
    """By benchmark: documents that touch a question of it, and those that hold one; the fullest come as examples."""
    found: dict[str, Any] = {}
    for benchmark in dict.fromkeys(asked[touch.question].benchmark for touch in touches):
        here = [touch for touch in touches if asked[touch.question].benchmark == benchmark]
        fullest = sorted(here, key=lambda touch: -touch.share)[:EXAMPLES]
        found[benchmark] = {
            "documents_touching": len({touch.number for touch in here}),
            "documents_holding": len({touch.number for touch in here if touch.whole}),
            "examples": [
                {
                    "at": _place(config, name, touch.number),
                    "subject": asked[touch.question].subject,
                    "index": asked[touch.question].index,
                    "stem": asked[touch.question].stem,
                    "share": round(touch.share, 3),
                }
                for touch in fullest
            ],
        }
    return found


def _benchmarks(config: ExperimentConfig, searched: Searched, touches: dict[str, list[Touch]]) -> dict[str, Any]:
    """Of each benchmark: its questions, those that a source touches, those that results will call contaminated."""
    leaked = contaminated(config, searched)
    every = Counter(question.benchmark for question in searched.questions)
    lost = Counter(question.benchmark for question in searched.index.unsearchable)
    found = {touch.question for each in touches.values() for touch in each}
    touched = Counter(searched.questions[question].benchmark for question in found)
    return {
        name: {
            "questions": every[name],
            "touched": touched[name],
            "contaminated": len(leaked.get(name, ())),
            "unsearchable": lost[name],
        }
        for name in every
    }


def _answers(config: ExperimentConfig, benchmarks: Sequence[Benchmark]) -> Iterator[dict[str, Any]]:
    """Every exam that is trained on, against every exam that is to gain by it."""
    gained = {benchmark.label for benchmark in config.evaluation.gain}
    tests = {
        benchmark.name: [question.answer for question in benchmark.questions]
        for benchmark in benchmarks
        if benchmark.name in gained
    }
    for name in trained_sources(config):
        source = config.data[name]
        if source.format != "exam":
            continue
        train = answers.answers(source, resolve(config, source.path))
        for benchmark, test in tests.items():
            for found in answers.differences(train, test):
                if found.what == answers.SEVERAL or source.answer_as == "letter":  # else no letter is learned
                    yield {"source": name, "benchmark": benchmark, **asdict(found), "differ": found.matters}


def _warnings(config: ExperimentConfig, report: Report) -> Iterator[str]:
    for name, found in report["benchmarks"].items():
        if found["contaminated"]:
            yield (
                f"{found['contaminated']:,} of {found['questions']:,} questions of {name} stand in text that is "
                "trained on: results will give them apart; `decontaminate: true` in a source drops such text"
            )
        if found["unsearchable"]:
            few = f"{found['unsearchable']:,} of {found['questions']:,}"
            yield f"{few} questions of {name} have too few words to be looked for"
    for name, source in report["sources"].items():
        repeated = sum(source["duplicates"][kind] for kind in KINDS)
        if repeated and not config.data[name].deduplicate:
            yield f"{repeated:,} documents of {name} repeat earlier ones: `deduplicate: true` there drops them"
    for found in report["answers"]:
        if found["differ"]:
            most = max(found["train"], key=lambda key: abs(found["train"][key] - found["test"][key]))
            yield (
                f"the {found['what']} of {found['source']} and {found['benchmark']} differ (p = {found['p']:.1g}): "
                f"{most!r} is {found['train'][most]:.1%} in training and {found['test'][most]:.1%} in test"
            )
