"""The record of a benchmark by question: what is known before a model is asked, as columns of answers/….parquet.

    benchmark, subject, index   the question: `index` counts the rows of its file (or of its subject on the hub) from 0
    categories, gold            its categories and the right letters
    shots, tokens               shots shown (fewer than asked for where they did not fit); tokens of the longest text
    prompt_hash                 of context and continuations: equal prompts have equal hashes, in every run
    answers                     the letters that were compared, in the order of `log_likelihoods`
    question                    what it asks, so that it has a name; of a long one the beginning and the end

Measuring adds prediction, correct, log_likelihoods (natural logarithms of the probability of each answer's text).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from clmed.evaluation.benchmarks import Benchmark
from clmed.evaluation.prompts import Prompt
from clmed.results.answers import QUESTION


def record(
    benchmark: Benchmark, prompts: Sequence[Prompt], shots: Sequence[int], tokens: Sequence[int]
) -> dict[str, list[Any]]:
    """Equally long columns, one entry a question."""
    questions = benchmark.questions
    return {
        "benchmark": [benchmark.name] * len(questions),
        "subject": [question.subject for question in questions],
        "index": [question.index for question in questions],
        "categories": [list(question.categories) for question in questions],
        "gold": [question.answer for question in questions],
        "shots": list(shots),
        "tokens": list(tokens),
        "prompt_hash": [prompt_hash(asked) for asked in prompts],
        "answers": [list(asked.answers) for asked in prompts],
        QUESTION: [excerpt(question.stem) for question in questions],
    }


def excerpt(text: str) -> str:
    """At most 160 characters of it, in a line: a question may end a long case, or begin before many sentences."""
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:100].rstrip()} … {line[-50:].lstrip()}"


def prompt_hash(asked: Prompt) -> str:
    """16 hex digits of the SHA-256 of the context and all continuations, separated by zero bytes."""
    return hashlib.sha256("\0".join([asked.context, *asked.continuations]).encode()).hexdigest()[:16]
