"""An exam on a live model: prompts made and tokenised once for all measurements, and what each measurement says.

Where format is to be told from knowledge (`format_check`) the same questions are asked in further ways at each
measurement, with results under the same benchmark: without shots (`accuracy_0_shot`, and `accuracy_0_shot_calibrated`
by letter) and by the options' texts (`accuracy_text`). What these give back of a loss: clmed/results/drops.py.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.aggregate import accuracy, scores
from clmed.evaluation.benchmarks import Benchmark, Question
from clmed.evaluation.calibration import calibrated, calibration_rows
from clmed.evaluation.encoding import Encoded, Request, encode, token_counts
from clmed.evaluation.prompts import Prompt, normalised_rows, prompt
from clmed.evaluation.record import record
from clmed.evaluation.scoring import score_tokens
from clmed.results.drops import CALIBRATED, NO_SHOTS, TEXT

Progress = Callable[[int], None]
Scores = list[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Way:
    """The questions of a benchmark as they are asked in one way; prompts, shots shown, tokens: one a question."""

    benchmark: Benchmark
    prompts: list[Prompt]
    shots: list[int]
    encoded: list[Encoded]

    @staticmethod
    def of(benchmark: Benchmark, shots: int, tokenizer: PreTrainedTokenizerBase, positions: int) -> "Way":
        """With at most `shots` shots, as many as fit `positions` tokens."""
        prompts, shown = fitting_prompts(benchmark, shots, tokenizer, positions)
        requests = [_request(*each) for each in zip(benchmark.questions, prompts, shown, strict=True)]
        return Way(benchmark=benchmark, prompts=prompts, shots=shown, encoded=encode(tokenizer, requests))

    def score(self, model: PreTrainedModel, batch_tokens: int, progress: Progress) -> list[np.ndarray]:
        """The log-likelihoods of each question's answers."""
        groups = [_group(*each) for each in zip(self.benchmark.questions, self.shots, strict=True)]
        found = score_tokens(model, groups, self.encoded, batch_tokens=batch_tokens, progress=progress)
        return [values for (values,) in found]

    def columns(self, found: Sequence[np.ndarray], way: str = "") -> dict[str, list[Any]]:
        """Of the record: what was compared, and what came out; `way` ends the names of those of a further way."""
        predictions = self.predictions(found)
        golds = [question.answer for question in self.benchmark.questions]
        columns: dict[str, list[Any]] = {
            f"answers{way}": [list(asked.answers) for asked in self.prompts],
            f"prediction{way}": predictions,
            f"correct{way}": [p == gold for p, gold in zip(predictions, golds, strict=True)],
            f"log_likelihoods{way}": [values.tolist() for values in found],
        }
        if (others := self.without_prior(found)) is not None:
            columns[f"prediction{way}{CALIBRATED}"] = others
        return columns

    def predictions(self, found: Sequence[np.ndarray]) -> list[str]:
        """The most probable answers."""
        return [asked.answers[int(np.argmax(values))] for asked, values in zip(self.prompts, found, strict=True)]

    def without_prior(self, found: Sequence[np.ndarray]) -> list[str] | None:
        """The predictions without the letters' prior; of sets of letters, or texts, nothing is known of a prior."""
        if self.benchmark.scoring != "letter" or self.benchmark.several:
            return None
        return calibrated([asked.answers for asked in self.prompts], found)

    @property
    def known(self) -> dict[str, list[Any]]:
        """The columns of the record that are known before a model is asked."""
        return record(self.benchmark, self.prompts, self.shots, [tokens.longest for tokens in self.encoded])


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedExam:
    """A benchmark in the way that is configured, and in the further ways of its format check, by name."""

    way: Way
    further: Mapping[str, Way]
    batch_tokens: int

    @staticmethod
    def of(
        config: BenchmarkConfig,
        benchmark: Benchmark,
        tokenizer: PreTrainedTokenizerBase,
        *,
        positions: int,
        batch_tokens: int,
        say: Callable[[str], None],
    ) -> "AskedExam":
        """say: tells of prompts that do not fit `positions` tokens. Raises UserError for questions that never do."""
        way = Way.of(benchmark, config.shots, tokenizer, positions)
        shown = zip(benchmark.questions, way.shots, strict=True)
        if lost := Counter(question.subject for question, count in shown if count < config.shots):
            by_subject = ", ".join(f"{subject} {count}" for subject, count in lost.most_common())
            say(
                f"{config.label}: {lost.total():,} of {len(way.shots):,} prompts lost shots from the front, to fit "
                f"{positions:,} positions ({by_subject})"
            )
        further: dict[str, Way] = {}
        if config.format_check:
            by_text = replace(benchmark, scoring="text")
            further = {TEXT: Way.of(by_text, config.shots, tokenizer, positions)}
            if config.shots:
                further[NO_SHOTS] = Way.of(benchmark, 0, tokenizer, positions)
        return AskedExam(way=way, further=further, batch_tokens=batch_tokens)

    @property
    def total(self) -> int:
        """Questions asked at each measurement."""
        return len(self.way.prompts) * (1 + len(self.further))

    @property
    def content(self) -> list[Prompt]:
        """Everything that is asked."""
        return [asked for way in (self.way, *self.further.values()) for asked in way.prompts]

    def measure(self, model: PreTrainedModel, progress: Progress) -> tuple[Scores, dict[str, list[Any]]]:
        """Rows for results.jsonl, and the columns of the record."""
        found = self.way.score(model, self.batch_tokens, progress)
        columns = {**self.way.known, **self.way.columns(found)}
        rows: Scores = [*scores(self.way.benchmark, columns["prediction"]), *_further_rows(self.way, found, columns)]
        for name, way in self.further.items():
            own = way.columns(way.score(model, self.batch_tokens, progress), f"_{name}")
            columns |= own
            said = {f"accuracy_{name}{end}": own.get(f"prediction_{name}{end}") for end in ("", CALIBRATED)}
            rows += [
                _row(metric, accuracy(way.benchmark, predictions), len(predictions))
                for metric, predictions in said.items()
                if predictions is not None
            ]
        return rows, columns


def _further_rows(way: Way, found: Sequence[np.ndarray], columns: Mapping[str, list[Any]]) -> Scores:
    """By text, accuracy by log-likelihood per byte and per character; by letter, calibration (one right letter)."""
    gold = [question.answer for question in way.benchmark.questions]
    if way.benchmark.scoring == "text":
        return [*normalised_rows(way.prompts, found, gold)]
    if (predictions := columns.get(f"prediction{CALIBRATED}")) is None:
        return []
    rows = calibration_rows([asked.answers for asked in way.prompts], found, gold)
    return [_row(f"accuracy{CALIBRATED}", accuracy(way.benchmark, predictions), len(gold)), *rows]


def _row(metric: str, score: float, questions: int) -> dict[str, Any]:
    return {"category": "all", "metric": metric, "score": score, "questions": questions}


def fitting_prompts(
    benchmark: Benchmark, shots: int, tokenizer: PreTrainedTokenizerBase, positions: int
) -> tuple[list[Prompt], list[int]]:
    """Every question's prompt with as many shots as fit, and how many these are.

    Raises UserError for questions that do not fit without any.
    """
    questions = benchmark.questions
    prompts = [prompt(benchmark, question, shots) for question in questions]
    shown = [shots] * len(prompts)
    most = positions - tokenizer.num_special_tokens_to_add() - 1  # and a space in front, as some tokenizers add
    long = [i for i, asked in enumerate(prompts) if _bytes(asked) > most]
    for left in range(shots - 1, -2, -1):
        if not long:
            break
        counts = token_counts(tokenizer, [_request(questions[i], prompts[i], shown[i]) for i in long])
        long = [i for i, count in zip(long, counts, strict=True) if count > positions]
        if left < 0:
            refuse_too_long(benchmark, long, positions)
        for i in long:
            prompts[i], shown[i] = prompt(benchmark, questions[i], left), left
    return prompts, shown


def refuse_too_long(benchmark: Benchmark, long: Sequence[int], positions: int) -> None:
    """Raises UserError if any questions, by their places, do not fit `positions` tokens without shots."""
    if not long:
        return
    first = benchmark.questions[long[0]]
    raise UserError(
        f"{benchmark.name}: {len(long):,} of {len(benchmark.questions):,} questions are longer, without any shots, "
        f"than the model's {positions:,} positions (the first: {first.subject}, question {first.index + 1}). Take a "
        "model with more positions, or delete them from the file."
    )


def _bytes(asked: Prompt) -> int:
    """A token is at least a byte, so a prompt of few bytes need not be tokenised to know that it fits."""
    return len(asked.context.encode()) + max(len(text.encode()) for text in asked.continuations)


def _request(question: Question, asked: Prompt, shots: int) -> Request:
    return Request(group=_group(question, shots), context=asked.context, continuations=asked.continuations)


def _group(question: Question, shots: int) -> str:
    """Questions with fewer shots are a group of their own: in one group all would share no more than the header."""
    return f"{question.subject}/{shots}"
