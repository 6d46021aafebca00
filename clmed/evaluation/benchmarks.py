"""Benchmarks as their authors publish them, local or on the hub -> questions.

    mmlu     a folder {dev,test}/<subject>_{dev,test}.csv without header: question, four options, letter
             hub (cais/mmlu): subset `all`, splits dev and test, columns question, choices, answer (an index), subject
    cmmlu    a folder {dev,test}/<subject>.csv with the header `,Question,A,B,C,D,Answer`
             hub (haonan-li/cmmlu): a subset for every subject, splits dev and test, the same columns
    cmexam   a file with the columns Question, Options (lines `A text`), Answer (one or several letters)
             hub (fzkuji/CMExam): splits test and, for `shots_from`, train; Options may be a list of {key, value}

A folder may hold `categories.csv` (subject,category; several rows a subject): what it says of a subject replaces what
clmed.evaluation.subjects says. A CMExam question's categories are `single` or `multiple` (right letters) and its
annotations "column=value": every further named column is one, unless no value of it occurs twice (ids).

What is done with odd rows, most of which occur in the published files or in their copies:
- Stems and options stay as published, outer spaces included (963 stems of MMLU; lm-evaluation-harness strips them);
  only CMExam's are stripped. A byte order mark is dropped, a line end inside a cell is one line feed, empty lines are
  no rows.
- Duplicate questions are kept, since published scores count them, and so are options with equal texts.
- CMExam's options may be fewer than five, start after A and have gaps, but their letters must ascend; full-width
  letters become plain. A line that starts with no letter continues the option before it.
- Answers: upper case, full-width letters become plain, spaces and separators go, letters are sorted ("Ｂ,A" is AB).
- A row whose answer is blank or "nan" cannot be scored. It is skipped, as CMExam's authors do, and listed in
  `Benchmark.reasons`; a shot without an answer gives its place to the next row.
- Everything else (blank cells, missing columns, an answer that is no option, …) is refused with file and line.
"""

import hashlib
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clmed.config import BenchmarkConfig
from clmed.data.exams import is_missing, parse_answer, parse_options
from clmed.errors import UserError
from clmed.evaluation import subjects
from clmed.evaluation.tables import Kind, Rows, read_categories, read_tables

HUB: Mapping[str, str] = {"mmlu": "cais/mmlu", "cmmlu": "haonan-li/cmmlu", "cmexam": "fzkuji/CMExam"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question; `index` counts the rows of its file from 0, `options` map letters to texts in the file's order."""

    subject: str
    index: int
    stem: str
    options: Mapping[str, str]
    answer: str  # the right letters, sorted
    categories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Questions in the order of the files (subjects by name) and every subject's shots."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]
    shots: Mapping[str, tuple[Question, ...]]
    several: bool  # may several letters be right?
    scoring: Literal["letter", "text"]
    reasons: tuple[str, ...] = ()  # why rows were skipped, one line a row

    @property
    def skipped(self) -> int:
        return len(self.reasons)


def load_benchmark(config: BenchmarkConfig, local: Path | None, shots_local: Path | None = None) -> Benchmark:
    """Read the benchmark of `config` from `local`, or from the hub where that is None.

    `shots_local` is the local file of `config.shots_from`. A file that cannot be read, a malformed row, missing shots
    or unknown subjects in categories.csv raise UserError.
    """
    kind = config.benchmark
    assert kind is not None, "a perplexity has no questions"
    path = config.path or HUB[kind]
    tables = read_tables(kind, path, local, "test")
    categories = read_categories(local, tables) if local and kind != "cmexam" else {}
    questions, reasons = _questions(kind, tables, categories)
    if not questions:
        raise UserError(f"{local or path} holds no questions; the benchmark {kind} needs at least one.")
    shots: dict[str, tuple[Question, ...]] = {}
    if config.shots:
        names = dict.fromkeys(question.subject for question in questions)
        shots = _shots(config, path, local, shots_local, names)
    return Benchmark(
        name=config.label,
        kind=kind,
        questions=_sample(questions, config.questions),
        shots=shots,
        several=kind == "cmexam",
        scoring=config.scoring,
        reasons=tuple(reasons),
    )


def _sample(questions: Sequence[Question], count: int | None) -> tuple[Question, ...]:
    """The `count` questions with the smallest hashes, in their order: the same ones in every run and on every machine.

    The hash knows neither the row nor the other questions, so a larger sample contains the smaller one.
    """

    def key(index: int) -> tuple[bytes, int]:
        question = questions[index]
        return hashlib.sha256(f"{question.subject}\n{question.stem}".encode()).digest(), index

    chosen = sorted(range(len(questions)), key=key)[:count]
    return tuple(questions[index] for index in sorted(chosen))


def _shots(
    config: BenchmarkConfig, path: str, local: Path | None, shots_local: Path | None, names: Iterable[str]
) -> dict[str, tuple[Question, ...]]:
    """Every subject's first `config.shots` rows of dev (CMExam: of `shots_from`)."""
    kind = config.benchmark
    assert kind is not None
    if kind == "cmexam":
        assert config.shots_from is not None, "shots of cmexam without shots_from are no valid configuration"
        if (shots_local or config.shots_from) == (local or path):
            raise UserError(
                f"{config.shots_from} is the test and `shots_from`, too: questions would show their answers."
            )
        path, local = config.shots_from, shots_local
    by_subject: defaultdict[str, list[Question]] = defaultdict(list)
    for question in _questions(kind, read_tables(kind, path, local, "dev"), {})[0]:
        by_subject[question.subject].append(question)
    for subject in names:
        if len(by_subject[subject]) < config.shots:
            raise UserError(
                f"{local or path} has {len(by_subject[subject])} questions with an answer to show for {subject}, but "
                f"`shots` asks for {config.shots}; lower it or add questions."
            )
    return {subject: tuple(by_subject[subject][: config.shots]) for subject in names}


def _questions(
    kind: Kind, tables: Mapping[str, Rows], own_categories: Mapping[str, tuple[str, ...]]
) -> tuple[list[Question], list[str]]:
    """The questions of all tables, and why rows were skipped."""
    questions, reasons = [], []
    for subject, rows in tables.items():
        of_subject = own_categories.get(subject) or subjects.categories(kind, subject)
        annotations = _annotations(rows) if kind == "cmexam" else []
        for index, (place, record) in enumerate(rows):
            try:
                stem, options, answer = _parse(kind, record)
            except ValueError as error:
                raise UserError(f"{place}: {error}; mend the row or delete it.") from error
            if not answer:
                reasons.append(f"{place}: no known answer")
                continue
            categories = of_subject
            if kind == "cmexam":
                categories = ("single" if len(answer) == 1 else "multiple", *_marks(record, annotations))
            questions.append(
                Question(subject=subject, index=index, stem=stem, options=options, answer=answer, categories=categories)
            )
    return questions, reasons


def _parse(kind: Kind, record: Mapping[str, Any]) -> tuple[str, dict[str, str], str]:
    """Stem, options by letter and right letters; ValueError, with the reason, for what cannot be understood."""
    if kind == "mmlu":
        stem, answer = _text(record["question"]), record["answer"]
        options = dict(zip(string.ascii_uppercase, map(_text, record["choices"]), strict=False))
    elif kind == "cmmlu":
        stem, answer = _text(record["Question"]), record["Answer"]
        options = {letter: _text(record[letter]) for letter in "ABCD"}
    else:
        # Training strips the question, too, so that both see the same prompt.
        stem, answer = _text(record["Question"]).strip(), record["Answer"]
        options = parse_options(record["Options"])
    blank = [name for name, text in {"question": stem, **options}.items() if not text.strip()]
    if blank:
        raise ValueError("the question is blank" if blank[0] == "question" else f"option {blank[0]} is blank")
    if len(options) < 2:
        raise ValueError("there is only one option")
    letters = _answer(answer, options)
    if len(letters) > 1 and kind != "cmexam":
        raise ValueError(f"{kind} has one right option, not {letters}")
    return stem, options, letters


def _answer(value: Any, options: Mapping[str, str]) -> str:
    """The right letters, sorted; nothing where the answer is not known. An integer counts the options from 0."""
    if isinstance(value, int):
        value = dict(enumerate(options)).get(value, value)
    return parse_answer(_text(value), options)


def _annotations(rows: Rows) -> list[str]:
    """The further named columns in which some value occurs twice."""
    known = {"", "Question", "Options", "Answer", "Explanation"}
    columns = [column for column in (rows[0][1] if rows else ()) if column not in known]
    values = {column: [_text(record[column]) for _, record in rows] for column in columns}
    return [name for name, cells in values.items() if any(n > 1 for cell, n in Counter(cells).items() if cell)]


def _marks(record: Mapping[str, Any], annotations: Sequence[str]) -> list[str]:
    return [f"{name}={_text(record[name]).strip()}" for name in annotations if not is_missing(_text(record[name]))]


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)
