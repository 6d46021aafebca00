"""What a benchmark of questions is: its description (`Exam`), and the questions read for one configuration."""

import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clmed.config import BenchmarkConfig
from clmed.data.exams import parse_answer, parse_options
from clmed.data.templates import ask_by_letter, ask_by_text
from clmed.evaluation.tables import Layout, Part, Rows, read_tables

Record = Mapping[str, Any]
Scoring = Literal["letter", "text", "generate", "reason"]
F1 = Literal["f1", "f1_macro", "f1_letters"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a row says. `options` map letters to texts in the file's order; `answer` holds the right letters, sorted,
    and nothing where the answer is not known; `context` is what must be read before the question; `explanation`: why
    the answer is right, where the file says so."""

    stem: str
    options: Mapping[str, str]
    answer: str
    context: str = ""
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class Question(Item):
    """One question; `index` counts the rows of its file from 0."""

    subject: str
    index: int
    categories: tuple[str, ...]


def _nothing(subject: str) -> str:
    return ""


def _no_categories(subject: str) -> tuple[str, ...]:
    return ()


def _no_columns(rows: Rows) -> Sequence[str]:
    return ()


def _by_letter(question: Item) -> str:
    return ask_by_letter(question.stem, question.options)


def _by_text(question: Item) -> str:
    return ask_by_text(question.stem.strip())


def _every_item(item: Item) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A benchmark as its authors publish, ask and average it: all that clmed knows of it.

    summary, source: for people: what is asked, and the paper;
    layout: where its rows are; read: how they come from there, subject -> rows;
    parse: what a row says; ValueError, with the reason, for what cannot be understood;
    keep: which questions are asked (the others are no part of the benchmark);
    header: a subject's first lines, by letter; by_letter, by_text: the question up to the colon before its answer;
    categories: those of a subject; annotations: the columns whose values are categories ("Difficulty=3");
    several: may several letters be right? average: over the questions, or over the subjects' means;
    f1: which are reported beside accuracy; scoring: how it is asked where the configuration does not say.
    """

    name: str
    summary: str
    source: str
    layout: Layout
    parse: Callable[[Record], Item]
    read: Callable[[Layout, str, BenchmarkConfig, Path | None, Part], dict[str, Rows]] = read_tables
    keep: Callable[[Item], bool] = _every_item
    header: Callable[[str], str] = _nothing
    by_letter: Callable[[Item], str] = _by_letter
    by_text: Callable[[Item], str] = _by_text
    categories: Callable[[str], tuple[str, ...]] = _no_categories
    annotations: Callable[[Rows], Sequence[str]] = _no_columns
    several: bool = False
    average: Literal["questions", "subjects"] = "questions"
    f1: tuple[F1, ...] = ()
    scoring: Scoring = "letter"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Questions in the order of the files (subjects by name) and every subject's shots."""

    name: str
    exam: Exam
    questions: tuple[Question, ...]
    shots: Mapping[str, tuple[Question, ...]]
    scoring: Scoring
    reasons: tuple[str, ...] = ()  # why rows were skipped, one line a row
    population: tuple[Question, ...] = ()  # those that `questions` are a sample of, where they are one

    @property
    def several(self) -> bool:
        """May several letters be right?"""
        return self.exam.several

    @property
    def skipped(self) -> int:
        """Rows that could not be scored."""
        return len(self.reasons)


def as_text(cell: Any) -> str:
    """A cell as text; nothing where it is missing."""
    return "" if cell is None or cell != cell else str(cell)


def clean(cell: Any) -> str:
    """A cell as text without outer spaces: for questions that are asked in clmed's own words anyway."""
    return as_text(cell).strip()


def right_letters(value: Any, options: Mapping[str, str]) -> str:
    """The right letters, sorted; nothing where the answer is not known. An integer counts the options from 0."""
    if isinstance(value, int):
        value = dict(enumerate(options)).get(value, value)
    return parse_answer(as_text(value), options)


def lettered(cells: Sequence[Any]) -> dict[str, str]:
    """Options without letters: A, B, C, … in their order. Empty ones at the end are options that the question lacks.
    ValueError for more than 26, and for one that is a list or an object."""
    if nested := [cell for cell in cells if isinstance(cell, list | Mapping)]:
        raise ValueError(f"an option is no text: {str(nested[0])[:40]}")
    texts = list(map(clean, cells))
    while texts and not texts[-1]:
        texts.pop()
    if len(texts) > len(string.ascii_uppercase):
        raise ValueError(f"there are {len(texts)} options, more than letters")
    return dict(zip(string.ascii_uppercase, texts, strict=False))


def options_of(cell: Any) -> dict[str, str]:
    """The options in one cell, by letter, in whichever of the usual forms they are.

    {"A": text, …} (one that is null is an option that this question lacks), a list of {key, value} or of {label, text},
    {"label": […], "text": […]}, a list of texts, or lines `A text`. Labels become letters by their place ("1" is A).
    ValueError for anything else.
    """
    if isinstance(cell, Mapping) and {"label", "text"} <= set(cell):
        return lettered(cell["text"])
    if isinstance(cell, Mapping):
        return _keyed(sorted(cell.items()))
    if isinstance(cell, list) and cell and all(isinstance(option, Mapping) for option in cell):
        if all("text" in option for option in cell):
            return lettered([option["text"] for option in cell])
        if all({"key", "value"} <= set(option) for option in cell):
            return _keyed([(option["key"], option["value"]) for option in cell])
    if isinstance(cell, list) and not any(isinstance(option, Mapping) for option in cell):
        return lettered(cell)
    return parse_options(cell)


def _keyed(pairs: Sequence[tuple[Any, Any]]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in pairs:
        letter = unicodedata.normalize("NFKC", str(key)).strip().upper()
        if letter not in string.ascii_uppercase or len(letter) != 1:
            raise ValueError(f"the option {str(key)[:40]!r} has no letter")
        if options and letter <= next(reversed(options)):
            raise ValueError(f"option {letter} comes after option {next(reversed(options))}")
        if value is not None:
            options[letter] = clean(value)
    return options
