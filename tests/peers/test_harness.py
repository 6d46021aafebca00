"""Scores against lm-evaluation-harness: the same model, the same questions, its own task files and prompts.

The same context to the letter, every log-likelihood within 1e-4 and the same prediction, by letter and by text, raw and
normalised, on MMLU and CMMLU with five shots.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (extra `peers`)")

from benchmarks import harness
from clmed.config import BenchmarkConfig
from clmed.evaluation.benchmarks import Benchmark, Question, load_benchmark
from clmed.evaluation.benchmarks.cmmlu import NAMES
from clmed.evaluation.prompts import Prompt, normalised_rows, prompt
from clmed.evaluation.scoring import Request, score

SHOTS = 5
OF_FP32 = np.finfo(np.float32).eps  # the harness sums in fp32, which cannot tell -1149.2338 from -1149.2339
EXAMS = [(exam, scoring) for exam in ("mmlu", "cmmlu") for scoring in ("letter", "text")]


@pytest.mark.parametrize(("exam", "scoring"), EXAMS)
def test_a_sample(real_data: Path, make_model, tokenizer, tmp_path, exam: str, scoring: str) -> None:
    """A few questions of three subjects."""
    whole = read(real_data, exam, scoring)
    subjects = sorted({question.subject for question in whole.questions})[::25]
    some = [q for q in whole.questions if q.subject in subjects and q.index < 4]
    model = make_model(max_position_embeddings=8192)
    compare(replace(whole, questions=tuple(some)), model, tokenizer, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize(("exam", "scoring"), EXAMS)
def test_every_question(real_data: Path, make_model, tokenizer, tmp_path, exam: str, scoring: str) -> None:
    """The complete files, with a tokenizer that has the texts' own words, which keeps this within the hour."""
    whole = read(real_data, exam, scoring)
    words = tokenizer.train_new_from_iterator(
        ("\n".join([q.stem, *q.options.values()]) for q in whole.questions), vocab_size=4096
    )
    model = make_model(max_position_embeddings=8192, vocab_size=len(words))
    compare(whole, model, words, tmp_path)


def read(data: Path, exam: str, scoring: str) -> Benchmark:
    path = data / exam
    config = {"benchmark": exam, "path": str(path), "shots": SHOTS, "scoring": scoring}
    return load_benchmark(BenchmarkConfig.model_validate(config), path)


def compare(benchmark: Benchmark, model, tokenizer, folder: Path) -> None:
    tasks = harness.write_tasks(benchmark, folder, shots=SHOTS, names=NAMES if benchmark.exam.name == "cmmlu" else {})
    _, samples = harness.evaluate(model, tokenizer, folder, tasks, batch_size=16)
    theirs = {task: iter(found) for task, found in samples.items()}
    prompts = [prompt(benchmark, question, SHOTS) for question in benchmark.questions]
    requests = [
        Request(group=question.subject, context=asked.context, continuations=asked.continuations)
        for question, asked in zip(benchmark.questions, prompts, strict=True)
    ]
    values = score(model, tokenizer, requests, batch_tokens=16_000)
    crossed = 0
    for question, asked, value in zip(benchmark.questions, prompts, values, strict=True):
        sample = next(theirs[f"clmed_{benchmark.exam.name}_{question.subject}"])
        assert sample["arguments"][0][0] == asked.context
        # Options with equal texts are one answer here and several there.
        found = {end: one for (_, end), (one, _) in zip(sample["arguments"], sample["filtered_resps"], strict=True)}
        assert list(found) == list(asked.continuations)
        if a_token_crosses_the_border(tokenizer, asked):
            crossed += 1
            continue
        np.testing.assert_allclose(value, list(found.values()), rtol=OF_FP32, atol=1e-4)
        if benchmark.scoring == "text" and the_first_of_equal_texts(question) != question.answer:
            # The harness takes the first of them and never counts the right one; clmed counts the text.
            assert not sample["acc"]
            continue
        best = asked.answers[int(np.argmax(value))]
        assert (best == question.answer) == bool(sample["acc"])
        if benchmark.scoring == "text":
            rows = {row["metric"]: row["score"] for row in normalised_rows([asked], [value], [question.answer])}
            assert rows == {"accuracy_per_byte": sample["acc_bytes"], "accuracy_per_character": sample["acc_norm"]}
        else:
            assert best == "ABCD"[int(np.argmax(list(found.values())))]
    assert all(next(rest, None) is None for rest in theirs.values())
    assert crossed <= 0.02 * len(prompts)


def the_first_of_equal_texts(question: Question) -> str:
    """The first letter whose option reads as the right one does (question 183 of macroeconomics: A reads as D)."""
    return next(letter for letter, text in question.options.items() if text == question.options[question.answer])


def a_token_crosses_the_border(tokenizer, asked: Prompt) -> bool:
    """Whether context and answer share a token (`：“` is one for a tokenizer that has seen many such answers).

    clmed counts it as the answer's; the harness drops it, and with it what tells some answers apart.
    """
    line = asked.context.rpartition("\n")[2]
    alone = tokenizer(line)["input_ids"]
    return any(tokenizer(line + end)["input_ids"][: len(alone)] != alone for end in asked.continuations)
