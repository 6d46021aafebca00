"""What a model is asked, to the letter.

By letter, an exam is asked as its description says: a header where its authors have one, then questions separated by
blank lines. By text, the question stands without its options and the answers are the options' texts. An answer
continues the context as it would in a text: after a Latin colon the space belongs to the answer, after a Chinese colon
there is none.

Where one option is right, the answers are the options. Where several may be (CMExam), they are all sets of options, the
smaller ones first, and each is closed by the end of answer, since "A" is also how "AB" begins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from clmed.data.templates import ANSWER_END, after, join_answers
from clmed.evaluation.benchmarks import Benchmark, Question


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """`continuations[i]` after `context` stands for the letters `answers[i]`."""

    context: str
    answers: tuple[str, ...]
    continuations: tuple[str, ...]


def prompt(benchmark: Benchmark, question: Question, shots: int) -> Prompt:
    """The prompt with the last `shots` of the subject's shots: fewer than there are make it shorter from the front.

    Answers that read the same (options with equal texts, by text) are one answer, which carries the right letters if
    one of them does, and otherwise the first one's: a text cannot say which of the two is meant.
    """
    examples = benchmark.shots[question.subject][-shots:] if shots else ()
    if len(examples) < shots:
        raise ValueError(f"{shots} shots of {question.subject}, but there are {len(examples)}")
    asked = _ask(benchmark, question)
    letters_of: dict[str, str] = {}
    for letters in _answers(benchmark, question):
        text = after(asked, _answer_text(benchmark, question, letters)) + (ANSWER_END if benchmark.several else "")
        if text not in letters_of or letters == question.answer:
            letters_of[text] = letters
    header = benchmark.exam.header(question.subject) if benchmark.scoring == "letter" else ""
    return Prompt(
        context=header + "".join(_shown(benchmark, shot) for shot in examples) + asked,
        answers=tuple(letters_of.values()),
        continuations=tuple(letters_of),
    )


def _ask(benchmark: Benchmark, question: Question) -> str:
    """The question up to the colon after which the answer comes."""
    return benchmark.exam.by_text(question) if benchmark.scoring == "text" else benchmark.exam.by_letter(question)


def _shown(benchmark: Benchmark, shot: Question) -> str:
    """A shot with its answer and the blank line that separates it from what follows."""
    asked = _ask(benchmark, shot)
    return asked + after(asked, _answer_text(benchmark, shot, shot.answer)) + ANSWER_END + "\n"


def _answers(benchmark: Benchmark, question: Question) -> Iterator[str]:
    for size in range(1, len(question.options) + 1 if benchmark.several else 2):
        yield from map("".join, combinations(question.options, size))


def _answer_text(benchmark: Benchmark, question: Question, letters: str) -> str:
    if benchmark.scoring == "letter":
        return letters
    return join_answers([question.options[letter].strip() for letter in letters])


def normalised_rows(
    prompts: Sequence[Prompt], values: Sequence[np.ndarray], gold: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of the accuracy by log-likelihood per byte and per character of the answer's text.

    The sum favours short options. lm-evaluation-harness calls these acc_bytes and acc_norm; the space that joins an
    answer to a Latin prompt and the end of answer are not counted.
    """
    sizes: dict[str, Callable[[str], int]] = {
        "accuracy_per_byte": lambda text: len(text.encode()),
        "accuracy_per_character": len,
    }
    rows = []
    for metric, size in sizes.items():
        right = [
            asked.answers[int(np.argmax(value / np.array([size(end.strip()) for end in asked.continuations])))]
            == answer
            for asked, value, answer in zip(prompts, values, gold, strict=True)
        ]
        rows.append({"category": "all", "metric": metric, "score": float(np.mean(right)), "questions": len(gold)})
    return rows
