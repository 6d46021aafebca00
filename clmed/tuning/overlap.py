"""Validation and test must have no question in common, nor a text."""

import re
from collections.abc import Iterator

from clmed.config import BenchmarkConfig, EvaluationConfig, ExperimentConfig, resolve
from clmed.errors import UserError

Key = tuple[object, ...]


def refuse_overlap(config: ExperimentConfig, validation: EvaluationConfig, test: EvaluationConfig) -> None:
    """UserError that names the benchmarks if something that chooses is among what judges.

    config: whose data_root and data the benchmarks mean. Questions are the same when stem and options are, whatever
    their order, their case and white space; a task of lm-evaluation-harness is one thing.
    """
    asked = {key: label for label, key in _asked(config, test)}
    shared: dict[tuple[str, str], int] = {}
    for label, key in _asked(config, validation):
        if key in asked:
            shared[label, asked[key]] = shared.get((label, asked[key]), 0) + 1
    if shared:
        told = "; ".join(f"{count:,} of '{one}' in '{other}'" for (one, other), count in shared.items())
        raise UserError(
            f"validation and test ask the same: {told}. What chooses a setting must not judge it: take another file or "
            "split, or tell them apart with `only` and `without` subjects."
        )


def _asked(config: ExperimentConfig, evaluation: EvaluationConfig) -> Iterator[tuple[str, Key]]:
    for benchmark in (*evaluation.gain, *evaluation.retention):
        yield from ((benchmark.label, key) for key in _keys(config, benchmark))


def _keys(config: ExperimentConfig, benchmark: BenchmarkConfig) -> Iterator[Key]:
    if benchmark.perplexity is not None:
        where = benchmark.path or config.data[benchmark.perplexity].path
        yield "text", resolve(config, where) or where, benchmark.subset, benchmark.split
        return
    if benchmark.task is not None:
        yield "task", benchmark.task
        return
    from clmed.evaluation.benchmarks import load_benchmark

    local = None if benchmark.path is None else resolve(config, benchmark.path)
    plain = benchmark.model_copy(update={"shots": 0, "shots_from": None})
    for question in load_benchmark(plain, local).questions:
        yield "question", _plain(question.stem), tuple(sorted(map(_plain, question.options.values())))


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()
