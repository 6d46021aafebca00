"""What a model is asked, to the letter.

By letter, MMLU and CMMLU are asked as their authors do: a header with the subject, then questions separated by blank
lines. CMExam is asked as it is trained (clmed.data.templates), without a header, since there is no published few-shot
prompt. By text, the question stands alone and the answers are the options' texts. An answer continues the context as
it would in a text: after a Latin colon the space belongs to the answer, after a Chinese colon there is none.

Where one option is right, the answers are the options. Where several may be (CMExam), they are all sets of options, the
smaller ones first, and each is closed by the end of answer, since "A" is also how "AB" begins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from clmed.data.templates import ANSWER_END, after, ask_by_letter, ask_by_text, join_answers
from clmed.evaluation.benchmarks import Benchmark, Question
from clmed.evaluation.subjects import CMMLU_NAMES


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
    return Prompt(
        context=_header(benchmark, question) + "".join(_shown(benchmark, shot) for shot in examples) + asked,
        answers=tuple(letters_of.values()),
        continuations=tuple(letters_of),
    )


def _header(benchmark: Benchmark, question: Question) -> str:
    subject = question.subject.replace("_", " ")
    if benchmark.scoring == "text" or benchmark.kind == "cmexam":
        return ""
    if benchmark.kind == "mmlu":
        return f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return f"以下是关于{CMMLU_NAMES.get(question.subject, subject)}的单项选择题，请直接给出正确答案的选项。\n\n"


def _ask(benchmark: Benchmark, question: Question) -> str:
    """The question up to the colon after which the answer comes."""
    if benchmark.scoring == "text":
        return ask_by_text(question.stem.strip())
    if benchmark.kind == "cmexam":
        return ask_by_letter(question.stem, question.options)
    if benchmark.kind == "mmlu":
        return f"{question.stem}\n{_lines(question.options)}Answer:"
    return f"题目：{question.stem}\n{_lines(question.options)}答案是："


def _lines(options: Mapping[str, str]) -> str:
    return "".join(f"{letter}. {text}\n" for letter, text in options.items())


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
