"""Benchmarks as Avalanche streams, their scores as Avalanche metrics, and the logger that writes both to the run."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import BenchmarkConfig, EvaluationConfig
from clmed.data.corpus import Corpus, Rows
from clmed.errors import UserError
from clmed.evaluation import explanations
from clmed.evaluation.aggregate import scores
from clmed.evaluation.benchmarks import Benchmark, Question, load_benchmark
from clmed.evaluation.calibration import against_base, calibration_rows
from clmed.evaluation.contamination import NOTHING, Found, marked
from clmed.evaluation.encoding import Request, token_counts
from clmed.evaluation.perplexity import heldout_rows, perplexity
from clmed.evaluation.prompts import Prompt, normalised_rows, prompt
from clmed.evaluation.record import record
from clmed.evaluation.scoring import score
from clmed.results.rundir import RunDirectory
from clmed.stream import BenchmarkExperience


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What measuring one benchmark once gave.

    scores: one {category, metric, score, questions} each; answers: columns of the record by question.
    """

    scores: Sequence[Mapping[str, Any]]
    answers: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seconds: float = 0.0


Follow = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""follow(what, total) is a context whose value is told how many more are done."""


def _unseen(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def make_benchmarks(
    evaluation: EvaluationConfig,
    *,
    path_of: Callable[[str], Path | None],
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    contaminated: Found = NOTHING,
    say: Callable[[str], None] = lambda message: None,
    follow: Follow = _unseen,
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
            else:
                benchmark = marked(load_benchmark(config, local, shots), contaminated)
                for reason in benchmark.reasons:
                    say(f"{config.label} leaves out {reason}")
                if benchmark.scoring in ("generate", "reason"):
                    made.append(_generated(config, role, benchmark, tokenizer, evaluation.batch_tokens, follow))
                    continue
                made.append(_exam(config, role, benchmark, tokenizer, positions, evaluation.batch_tokens, say, follow))
    return made


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
    questions = benchmark.questions
    prompts, shots = fitting_prompts(benchmark, config.shots, tokenizer, positions)
    if shortened := Counter(
        question.subject for question, left in zip(questions, shots, strict=True) if left < config.shots
    ):
        by_subject = ", ".join(f"{subject} {count}" for subject, count in shortened.most_common())
        say(
            f"{config.label}: {shortened.total():,} of {len(questions):,} prompts lost shots from the front, to fit "
            f"{positions:,} positions ({by_subject})"
        )
    requests = [_request(*each) for each in zip(questions, prompts, shots, strict=True)]
    known = record(benchmark, prompts, shots, token_counts(tokenizer, requests))

    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        with follow(f"measuring {config.label}", len(requests)) as progress:
            found = score(model, tokenizer, requests, batch_tokens=batch_tokens, progress=progress)
        predictions = [asked.answers[int(np.argmax(values))] for asked, values in zip(prompts, found, strict=True)]
        answers = {
            **known,
            "prediction": predictions,
            "correct": [p == question.answer for p, question in zip(predictions, questions, strict=True)],
            "log_likelihoods": [values.tolist() for values in found],
        }
        rows = [*scores(benchmark, predictions), *_further(benchmark, prompts, found)]
        return Measurement(scores=rows, answers=answers, seconds=time.perf_counter() - start)

    return BenchmarkExperience(
        name=config.label, role=role, items=questions, measure=measure, content=(config.scoring, *prompts)
    )


def _further(
    benchmark: Benchmark, prompts: Sequence[Prompt], found: Sequence[np.ndarray]
) -> Sequence[Mapping[str, Any]]:
    """By text, accuracy by log-likelihood per byte and per character; by letter, calibration (one right letter)."""
    gold = [question.answer for question in benchmark.questions]
    if benchmark.scoring == "letter":
        answers = [asked.answers for asked in prompts]
        return [] if benchmark.several else calibration_rows(answers, found, gold)
    return normalised_rows(prompts, found, gold)


def _generated(
    config: BenchmarkConfig,
    role: str,
    benchmark: Benchmark,
    tokenizer: PreTrainedTokenizerBase,
    batch_tokens: int,
    follow: Follow,
) -> BenchmarkExperience:
    """An exam whose answers are generated, with their explanations."""
    explanations.check_installed()
    questions = benchmark.questions
    asked = explanations.prompts(benchmark)

    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        with follow(f"measuring {config.label}", len(questions)) as progress:
            rows, found = explanations.measure_explanations(
                model, tokenizer, benchmark, batch_tokens=batch_tokens, progress=progress
            )
        answers: dict[str, Sequence[Any]] = {
            "subject": [question.subject for question in questions],
            "index": [question.index for question in questions],
            "categories": [list(question.categories) for question in questions],
            "gold": [question.answer for question in questions],
            "correct": [p == q.answer for p, q in zip(found["prediction"], questions, strict=True)],
            **found,
        }
        return Measurement(scores=rows, answers=answers, seconds=time.perf_counter() - start)

    return BenchmarkExperience(
        name=config.label, role=role, items=questions, measure=measure, content=(config.scoring, *asked)
    )


def fitting_prompts(
    benchmark: Benchmark, shots: int, tokenizer: PreTrainedTokenizerBase, positions: int
) -> tuple[list[Prompt], list[int]]:
    """Every question's prompt with as many shots as fit, and how many these are.

    Raises UserError for questions that do not fit without any.
    """
    questions = benchmark.questions
    prompts = [prompt(benchmark, question, shots) for question in questions]
    shown = [shots] * len(prompts)
    long = [i for i, asked in enumerate(prompts) if _bytes(asked) > positions]
    for left in range(shots - 1, -2, -1):
        if not long:
            break
        counts = token_counts(tokenizer, [_request(questions[i], prompts[i], shown[i]) for i in long])
        long = [i for i, count in zip(long, counts, strict=True) if count > positions]
        if long and left < 0:
            first = questions[long[0]]
            raise UserError(
                f"{benchmark.name}: {len(long):,} of {len(questions):,} questions are longer, without any shots, than "
                f"the model's {positions:,} positions (the first: {first.subject}, question {first.index + 1}). Take a "
                "model with more positions, or delete them from the file."
            )
        for i in long:
            prompts[i], shown[i] = prompt(benchmark, questions[i], left), left
    return prompts, shown


def _bytes(asked: Prompt) -> int:
    """A token is at least a byte, so a prompt of few bytes need not be tokenised to know that it fits."""
    return len(asked.context.encode()) + max(len(text.encode()) for text in asked.continuations)


def _request(question: Question, asked: Prompt, shots: int) -> Request:
    """Questions with fewer shots are a group of their own: in one group all would share no more than the header."""
    return Request(group=f"{question.subject}/{shots}", context=asked.context, continuations=asked.continuations)


def _perplexity(config: BenchmarkConfig, role: str, rows: Rows, batch_tokens: int) -> BenchmarkExperience:
    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        nats, tokens = perplexity(model, rows.data, batch_tokens=batch_tokens)
        values = {"nats_per_token": nats / tokens, "bits_per_byte": nats / np.log(2) / int(rows.bytes.sum())}
        found = [{"category": "all", "metric": m, "score": value, "questions": tokens} for m, value in values.items()]
        return Measurement(scores=found, seconds=time.perf_counter() - start)

    content = [Path(file["filename"]).parent.name for file in rows.data.cache_files]  # by which the cache knows them
    return BenchmarkExperience(name=config.label, role=role, items=range(len(rows)), measure=measure, content=content)


class Scores(PluginMetric[dict]):
    """A benchmark's scores as Avalanche metric values, named as every tracker shows them: benchmark/category/metric."""

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
        place = {
            "point": strategy.point,
            "tokens": strategy.tokens,
            "all_tokens": strategy.all_tokens,
            "bytes": strategy.bytes,
            "flops": strategy.flops,
            "experience": strategy.measured_experience,
            "final": strategy.measured_final,
            "train_seconds": round(strategy.train_seconds, 3),
        }
        benchmark = strategy.experience
        write_measurement(self.directory, benchmark, strategy.mb_output, self.shots[benchmark.name], place)
        self.say(told(benchmark, strategy.mb_output))


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
        rows += against_base(base, rows)
    directory.add_results([{**common, **row} for row in rows])
    if measured.answers:
        directory.write_answers(place["point"], benchmark.name, measured.answers)


def told(benchmark: BenchmarkExperience, measured: Measurement) -> str:
    """The whole scores in a line."""
    whole = ", ".join(f"{row['metric']} {row['score']:.4g}" for row in measured.scores if row["category"] == "all")
    return f"  measured {benchmark.name}: {whole} ({measured.seconds:.1f} s)"
