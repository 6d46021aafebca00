"""Benchmarks as Avalanche streams, their scores as Avalanche metrics, and the logger that writes both to the run."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import BenchmarkConfig, EvaluationConfig
from clmed.data.corpus import Corpus, Rows
from clmed.evaluation import explanations
from clmed.evaluation.benchmarks import Benchmark, load_benchmark
from clmed.evaluation.contamination import NOTHING, Found, marked, tell
from clmed.evaluation.exams import AskedExam, refuse_too_long
from clmed.evaluation.generation import prompt_tokens
from clmed.evaluation.measurement import Follow, Measurement, unseen
from clmed.evaluation.perplexity import heldout_rows, losses_by_row
from clmed.evaluation.prompts import Prompt
from clmed.evaluation.record import record
from clmed.evaluation.scoring import check, longest
from clmed.results.answers import QUESTION
from clmed.results.drops import against_base
from clmed.results.rundir import VARIANTS, RunDirectory
from clmed.results.table import CONTAMINATED
from clmed.stream import BenchmarkExperience


def make_benchmarks(
    evaluation: EvaluationConfig,
    *,
    path_of: Callable[[str], Path | None],
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    contaminated: Found = NOTHING,
    say: Callable[[str], None] = lambda message: None,
    follow: Follow = unseen,
) -> list[BenchmarkExperience]:
    """Every configured benchmark, read and turned into prompts; `positions`: the most tokens that the model takes.

    contaminated: questions that are scored apart, since training text holds them (clmed.evaluation.contamination);
    say: tells what is left out or shortened; follow: shows how a measurement gets on.
    """
    made = []
    for role, configs in (("gain", evaluation.gain), ("retention", evaluation.retention)):
        for config in configs:
            local, shots = (None if path is None else path_of(path) for path in (config.path, config.shots_from))
            if config.perplexity is not None:
                rows = heldout_rows(config, corpus, local)
                made.append(_perplexity(config, role, rows, evaluation.batch_tokens))
            elif config.task is not None:
                from clmed.evaluation.harness.measure import make_task

                floor, held = evaluation.floors.get(config.label), contaminated.get(config.label, ())
                budget = evaluation.batch_tokens
                made.append(make_task(config, role, local, tokenizer, positions, budget, floor, say, follow, held))
            else:
                benchmark = marked(load_benchmark(config, local, shots), contaminated)
                tell(config.label, sum(CONTAMINATED in each.categories for each in benchmark.questions), say)
                for reason in benchmark.reasons:
                    say(f"{config.label} leaves out {reason}")
                if benchmark.scoring in ("generate", "reason"):
                    made.append(
                        _generated(config, role, benchmark, tokenizer, positions, evaluation.batch_tokens, say, follow)
                    )
                    continue
                made.append(_exam(config, role, benchmark, tokenizer, positions, evaluation.batch_tokens, say, follow))
    return made


def most_tokens(evaluation: EvaluationConfig, model: PreTrainedModel) -> int:
    """The most tokens of a prompt. Raises UserError for a model that cannot be asked questions, if there are any."""
    if any(benchmark.benchmark is not None for benchmark in (*evaluation.gain, *evaluation.retention)):
        check(model)
    return longest(model)


def _exam(
    config: BenchmarkConfig,
    role: str,
    benchmark: Benchmark,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    batch_tokens: int,
    say: Callable[[str], None],
    follow: Follow,
) -> BenchmarkExperience:
    exam = AskedExam.of(config, benchmark, tokenizer, positions=positions, batch_tokens=batch_tokens, say=say)

    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        with follow(f"measuring {config.label}", exam.total) as progress:
            rows, answers = exam.measure(model, progress)
        by_subject = benchmark.exam.average == "subjects"
        return Measurement(scores=rows, answers=answers, seconds=time.perf_counter() - start, by_subject=by_subject)

    content = (config.scoring, *exam.content)
    return BenchmarkExperience(
        name=config.label, role=role, items=benchmark.questions, measure=measure, content=content
    )


def _generated(
    config: BenchmarkConfig,
    role: str,
    benchmark: Benchmark,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    batch_tokens: int,
    say: Callable[[str], None],
    follow: Follow,
) -> BenchmarkExperience:
    """An exam whose answers are generated, with their explanations."""
    explanations.check_installed()
    questions = benchmark.questions
    asked = explanations.prompts(benchmark)
    lengths = [len(tokens) for tokens in prompt_tokens(tokenizer, asked)]
    refuse_too_long(benchmark, [i for i, length in enumerate(lengths) if length >= positions], positions)
    if short := sum(length + explanations.MOST > positions for length in lengths):
        say(
            f"{config.label}: {short:,} of {len(asked):,} prompts leave less than {explanations.MOST} of {positions:,} "
            "positions, where the answer ends"
        )
    prompts = [Prompt(context=text, answers=(), continuations=()) for text in asked]
    known = record(benchmark, prompts, [0] * len(asked), lengths)
    del known["answers"]  # none is compared

    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        with follow(f"measuring {config.label}", len(questions)) as progress:
            rows, found = explanations.measure_explanations(
                model, tokenizer, benchmark, batch_tokens=batch_tokens, progress=progress
            )
        answers: dict[str, Sequence[Any]] = {
            **known,
            "correct": [p == q.answer for p, q in zip(found["prediction"], questions, strict=True)],
            **found,
        }
        return Measurement(scores=rows, answers=answers, seconds=time.perf_counter() - start)

    return BenchmarkExperience(
        name=config.label, role=role, items=questions, measure=measure, content=(config.scoring, *asked)
    )


def _perplexity(config: BenchmarkConfig, role: str, rows: Rows, batch_tokens: int) -> BenchmarkExperience:
    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        by_row = losses_by_row(model, rows.data, batch_tokens=batch_tokens)
        nats, tokens = by_row[:, 0].sum(), int(by_row[:, 1].sum())
        values = {"nats_per_token": nats / tokens, "bits_per_byte": nats / np.log(2) / int(rows.bytes.sum())}
        found = [{"category": "all", "metric": m, "score": value, "questions": tokens} for m, value in values.items()]
        answers = {
            "benchmark": [config.label] * len(rows),
            "index": list(range(len(rows))),
            "nats": by_row[:, 0].tolist(),
            "tokens": by_row[:, 1].astype(int).tolist(),
            "bytes": rows.bytes.tolist(),
        }
        return Measurement(scores=found, answers=answers, seconds=time.perf_counter() - start)

    content = [Path(file["filename"]).parent.name for file in rows.data.cache_files]  # by which the cache knows them
    return BenchmarkExperience(name=config.label, role=role, items=range(len(rows)), measure=measure, content=content)


class Scores(PluginMetric[dict]):
    """A benchmark's scores as Avalanche metric values, named as trackers show them: benchmark/category/metric."""

    def result(self) -> dict:
        """The scores of the benchmark measured last."""
        return self.last

    def reset(self) -> None:
        """Forget them."""
        self.last: dict = {}

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        """The trainer leaves the measurement in `mb_output`."""
        name = strategy.experience.name
        self.last = {f"{name}/{row['category']}/{row['metric']}": row["score"] for row in strategy.mb_output.scores}
        return [MetricValue(self, key, value, strategy.tokens) for key, value in self.last.items()]


class RunWriter(BaseLogger):
    """Writes each measurement to results.jsonl and the answers to every question as Parquet."""

    def __init__(self, directory: RunDirectory, shots: dict[str, int], say: Callable[[str], None]) -> None:
        """shots: of each benchmark, by name; say: tells each whole score as it comes."""
        super().__init__()
        self.directory, self.shots, self.say = directory, shots, say

    def after_eval_exp(self, strategy: Any, metric_values: Sequence[MetricValue], **kwargs: Any) -> None:
        """One benchmark has been measured."""
        benchmark = strategy.experience
        place = _place(strategy, strategy.measured_experience, strategy.measured_final)
        write_measurement(self.directory, benchmark, strategy.mb_output, self.shots[benchmark.name], place)
        self.say(told(benchmark, strategy.mb_output))

    def variant(
        self, trainer: Any, benchmark: BenchmarkExperience, measured: Measurement, what: Mapping[str, float]
    ) -> None:
        """One benchmark has been measured on weights beside the run's own, as `what` says (`{"alpha": 0.5}`)."""
        place = _place(trainer, trainer.experience.name, True)
        common = {"role": benchmark.role, "benchmark": benchmark.name, "shots": self.shots[benchmark.name]}
        rows = [{**place, **what, **common, **row} for row in measured.scores]
        self.directory.add_results(rows, VARIANTS)
        self.say(f"{told(benchmark, measured)} at {', '.join(f'{key} {value:g}' for key, value in what.items())}")


def _place(trainer: Any, experience: str, final: bool) -> dict[str, Any]:
    """The measurement point, and what was trained until then."""
    return {
        "point": trainer.point,
        "tokens": trainer.tokens,
        "all_tokens": trainer.all_tokens,
        "bytes": trainer.bytes,
        "flops": trainer.flops,
        "experience": experience,
        "final": final,
        "train_seconds": round(trainer.train_seconds, 3),
    }


def write_measurement(
    directory: RunDirectory,
    benchmark: BenchmarkExperience,
    measured: Measurement,
    shots: int,
    place: Mapping[str, Any],
) -> None:
    """Add one benchmark to results.jsonl and answers/; `place`: the point, and what was trained until then."""
    common = {
        **place,
        "role": benchmark.role,
        "benchmark": benchmark.name,
        "shots": shots,
        "seconds": round(measured.seconds, 3),
    }
    rows = list(measured.scores)
    if place["point"]:
        base = [row for row in directory.results() if row["point"] == 0 and row["benchmark"] == benchmark.name]
        then = directory.answers(0, benchmark.name) if base and measured.answers else None
        rows += against_base(base, rows, then, measured.answers, by_subject=measured.by_subject)
    directory.add_results([{**common, **row} for row in rows])
    if measured.answers:
        kept = {name: column for name, column in measured.answers.items() if name != QUESTION or not place["point"]}
        directory.write_answers(place["point"], benchmark.name, kept)


def told(benchmark: BenchmarkExperience, measured: Measurement) -> str:
    """The whole scores in a line."""
    whole = ", ".join(f"{row['metric']} {row['score']:.4g}" for row in measured.scores if row["category"] == "all")
    return f"  measured {benchmark.name}: {whole} ({measured.seconds:.1f} s)"
