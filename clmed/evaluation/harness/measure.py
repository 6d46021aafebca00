"""Measuring a task: the harness's evaluation on the live model, its metrics as rows, its samples as the record."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stderr
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.evaluator import evaluate
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.contamination import tell
from clmed.evaluation.harness.model import LiveModel
from clmed.evaluation.harness.questions import parts
from clmed.evaluation.harness.suite import Suite, Written, read_suite, undisturbed
from clmed.evaluation.measurement import Follow, Measurement
from clmed.evaluation.record import excerpt
from clmed.results.answers import QUESTION
from clmed.results.metrics import WHOLE, is_accuracy, lower_is_better
from clmed.results.table import CLEAN, CONTAMINATED
from clmed.stream import BenchmarkExperience


def make_task(
    config: BenchmarkConfig,
    role: str,
    local: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    positions: int,
    batch_tokens: int,
    floor: float | None,
    say: Callable[[str], None],
    follow: Follow,
    held: Collection[tuple[str, int]] = (),
) -> BenchmarkExperience:
    """`config.task` as a benchmark of a run; see `evaluator.make_benchmarks` and `suite.read_suite`.

    held: (task, row) of the questions that training text holds.
    """
    suite = read_suite(config, local, positions, say)
    asked = suite.questions()
    tell(config.label, sum((name, row) in held for name, row, _ in asked), say)
    told: set[int] = set()

    def measure(model: PreTrainedModel) -> Measurement:
        start = time.perf_counter()
        live = LiveModel(model, tokenizer, batch_tokens=batch_tokens, label=config.label, follow=follow)
        found = answered(suite, live)
        if live.cut and live.cut not in told:
            told.add(live.cut)
            say(f"{config.label}: {live.cut:,} texts lost their beginning, to fit {live.limit:,} positions")
        rows = score_rows(config, suite, found)
        _check_floor(config, floor, rows[0]["metric"])
        answers = record(config, suite, found["samples"], rows[0])
        rows += marked(answers, rows[0], held)
        return Measurement(scores=rows, answers=answers, seconds=time.perf_counter() - start)

    prompts = [(name, row, [each.args for each in instances]) for name, row, instances in asked]
    versions = [version("lm_eval"), *((name, task.VERSION) for name, task in suite.tasks.items())]
    return BenchmarkExperience(name=config.label, role=role, items=prompts, measure=measure, content=versions)


def answered(suite: Suite, live: LiveModel) -> dict[str, Any]:
    """What the harness's own evaluation gives."""
    with undisturbed(), redirect_stderr(io.StringIO()):
        tasks: dict[str, Any] = {name: Written(task) for name, task in suite.tasks.items()}
        found: dict[str, Any] = evaluate(
            lm=live,
            task_dict={"tasks": tasks, "groups": suite.groups},
            samples=suite.chosen,
            bootstrap_iters=0,
        )
    return found


def score_rows(config: BenchmarkConfig, suite: Suite, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each metric: of the whole, of groups in it as categories, of its tasks as subjects.

    The first is the one that figures and averages use: an accuracy where there is one, else what the task names first.
    Raises UserError where the whole has no score that is a number.
    """
    rows = []
    for name, values in found["results"].items():
        for key, value in values.items():
            metric, _, kept = key.partition(",")
            if not kept or metric.endswith("_stderr") or not isinstance(value, Real):
                continue
            category = WHOLE if name == suite.name else name if name in suite.groups else f"subject:{name}"
            row = {"category": category, "metric": metric if kept == "none" else key, "score": float(value)}
            rows.append({**row, "questions": values["sample_len"], "shots": suite.shots(name)})
    rows.sort(key=lambda row: (row["category"] != WHOLE, row["category"].startswith("subject:")))
    whole = [row for row in rows if row["category"] == WHOLE]
    if not whole:
        raise UserError(f"{config.benchmark} has no score that is a number.")
    first = next((row for row in whole if is_accuracy(row["metric"])), whole[0])
    return [first, *(row for row in rows if row is not first)]


def _check_floor(config: BenchmarkConfig, floor: float | None, metric: str) -> None:
    if floor is not None and (floor > 0) != lower_is_better(metric):
        may = (
            "per cent that it may rise, such as +5%"
            if lower_is_better(metric)
            else "points that it may fall, such as -2"
        )
        raise UserError(f"evaluation.floors: {config.label} is measured by its {metric} and needs {may}")


def record(
    config: BenchmarkConfig, suite: Suite, samples: Mapping[str, Sequence[Mapping[str, Any]]], first: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Equally long columns, one entry a question, as in `clmed.evaluation.record`.

    Besides: `generated`, a text before the task's filter (`prediction` is what the filter left of it), and `score`, the
    question's own value of the metric `first`; `correct` where that is 0 or 1.
    """
    metric, _, kept = first["metric"].partition(",")
    columns: dict[str, list[Any]] = {}
    for name, task in suite.tasks.items():
        filters = [sample["filter"] for sample in samples[name]]
        chosen = kept if kept in filters else filters[0]
        groups = [group for group, held in suite.groups.items() if group != suite.name and task in held.get_all_tasks()]
        for sample in (sample for sample in samples[name] if sample["filter"] == chosen):
            score = _value(task, sample.get(metric))
            row = {
                "benchmark": config.label,
                "subject": name,
                "index": sample["doc_id"],
                "categories": [*groups],
                "gold": _text(sample["target"]),
                "shots": task.get_config("num_fewshot"),
                "prompt_hash": hashlib.sha256(repr(sample["arguments"]).encode()).hexdigest()[:16],
                QUESTION: excerpt(parts(task, sample["doc"])[0]),
                **_answer(task, sample),
                "score": score,
                "correct": bool(score) if score in (0.0, 1.0) else None,
            }
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
    return columns


def marked(
    answers: Mapping[str, list[Any]], first: Mapping[str, Any], held: Collection[tuple[str, int]]
) -> list[dict[str, Any]]:
    """Add the category `clean` or `contaminated` to each question, and give the scores of both; nothing where none is
    contaminated. Only accuracies can be given apart: means over questions."""
    questions = zip(answers["subject"], answers["index"], strict=True)
    marks = [CONTAMINATED if question in held else CLEAN for question in questions]
    if CONTAMINATED not in marks:
        return []
    for categories, mark in zip(answers["categories"], marks, strict=True):
        categories.append(mark)
    rows = []
    for kind in (CLEAN, CONTAMINATED) if is_accuracy(first["metric"]) else ():
        scores = [score for score, mark in zip(answers["score"], marks, strict=True) if mark == kind]
        if scores and None not in scores:
            row = {"category": kind, "metric": first["metric"], "score": float(np.mean(scores))}
            rows.append({**row, "questions": len(scores), "shots": first["shots"]})
    return rows


def _answer(task: Any, sample: Mapping[str, Any]) -> dict[str, Any]:
    said = [responses[0] for responses in sample["resps"]]  # the first, where an answer is asked for several times
    row: dict[str, Any] = {"answers": [], "log_likelihoods": [], "generated": "", "prediction": ""}
    if isinstance(said[0], str):
        return {**row, "generated": said[0], "prediction": _text(sample["filtered_resps"][0])}
    values = [float(one[0]) if isinstance(one, tuple) else float(one) for one in said]
    if task.OUTPUT_TYPE != "multiple_choice":
        return {**row, "log_likelihoods": values}
    answers = [str(choice) for choice in task.doc_to_choice(sample["doc"])]
    best = int(np.argmax(values[: len(answers)]))  # after them there may be the same without the question
    return {**row, "answers": answers, "log_likelihoods": values[: len(answers)], "prediction": answers[best]}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _value(task: Any, value: Any) -> float | None:
    """A question's value of a metric that is a mean over questions; of (gold, predicted), whether they are equal."""
    if isinstance(value, tuple) and task.OUTPUT_TYPE == "multiple_choice" and np.isscalar(value[1]):
        return float(value[0] == value[1])
    return float(value) if isinstance(value, Real | np.bool_) else None
