"""The configured benchmarks' questions, looked for in what a run trains on; results tell found ones from the others."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from clmed.config import BenchmarkConfig, ExperimentConfig, resolve
from clmed.data.cleaning import Searched, Watch, touches_in, unseen
from clmed.data.contamination import Asked
from clmed.evaluation.benchmarks import Benchmark, load_benchmark
from clmed.results.table import CLEAN, CONTAMINATED

Found = Mapping[str, Collection[tuple[str, int]]]
"""Benchmark's label -> (subject, index) of the questions that occur in training text."""
NOTHING: Found = {}


def _path(config: ExperimentConfig, benchmark: BenchmarkConfig) -> Path | None:
    return None if benchmark.path is None else resolve(config, benchmark.path)


def whole_exams(config: ExperimentConfig) -> list[Benchmark]:
    """Every exam with all its questions, also those that a sample or `only` leaves out."""
    everything: dict[str, object] = {"questions": None, "only": [], "without": [], "shots": 0, "shots_from": None}

    def whole(benchmark: BenchmarkConfig) -> Benchmark:
        settings = benchmark.model_copy(update=everything)
        return load_benchmark(settings, _path(config, benchmark))

    every = [*config.evaluation.gain, *config.evaluation.retention]
    return [whole(benchmark) for benchmark in every if benchmark.is_exam]


def asked_by_tasks(config: ExperimentConfig) -> list[Asked]:
    """The questions of the tasks of lm-evaluation-harness, all of them, as they are searched for."""
    tasks = [task for task in (*config.evaluation.gain, *config.evaluation.retention) if task.task is not None]
    if not tasks:
        return []
    from clmed.evaluation.harness.questions import questions

    return [question for task in tasks for question in questions(task, _path(config, task))]


def asked(benchmarks: Iterable[Benchmark]) -> list[Asked]:
    """Their questions as they are searched for."""
    return [
        Asked(
            benchmark=benchmark.name,
            subject=question.subject,
            index=question.index,
            stem=question.stem,
            options=tuple(question.options.values()),
            right=tuple(list(question.options).index(letter) for letter in question.answer),
        )
        for benchmark in benchmarks
        for question in benchmark.questions
    ]


def trained_sources(config: ExperimentConfig) -> list[str]:
    """The sources that the stream, the strategies and the making of the base learn from."""
    pretrain = config.model.build.pretrain if config.model.build is not None else None
    named = {name for experience in config.stream for name in experience.data} | set(pretrain.data if pretrain else ())
    for parameters in config.strategy.values():
        named |= {name for key, value in parameters.items() if key.endswith("from") for name in _names(value)}
    return [name for name in config.data if name in named]


def _names(value: Any) -> Iterable[str]:
    values = value if isinstance(value, list) else [value]
    return [name for name in values if isinstance(name, str)]


def contaminated(config: ExperimentConfig, searched: Searched, watch: Watch = unseen) -> Found:
    """The questions that a document holds, of a train part of a source that is trained on and not decontaminated."""
    names = [name for name in trained_sources(config) if not config.data[name].decontaminate]
    found: dict[str, set[tuple[str, int]]] = {}
    for name in names if searched.questions else ():
        for touch in touches_in(config, name, searched, watch):
            if touch.part == "train" and touch.whole:
                question = searched.questions[touch.question]
                found.setdefault(question.benchmark, set()).add((question.subject, question.index))
    return found


def tell(name: str, held: int, say: Callable[[str], None]) -> None:
    """How many of the questions that are asked training text holds, if it does any."""
    if held:
        say(f"{held:,} questions of {name} stand in text that is trained on: results give them apart")


def marked(benchmark: Benchmark, found: Found) -> Benchmark:
    """With the category `clean` or `contaminated` for each question; as it is when none of its questions was found."""
    held = found.get(benchmark.name, ())
    marks = [CONTAMINATED if (question.subject, question.index) in held else CLEAN for question in benchmark.questions]
    if CONTAMINATED not in marks:
        return benchmark
    questions = (
        dataclasses.replace(question, categories=(*question.categories, mark))
        for question, mark in zip(benchmark.questions, marks, strict=True)
    )
    return dataclasses.replace(benchmark, questions=tuple(questions))
