"""From the description of a benchmark and its files to the questions of one configuration.

What is done with odd rows, most of which occur in the published files or in their copies:
- Stems and options stay as published, outer spaces included (963 stems of MMLU; lm-evaluation-harness strips them);
  only CMExam's are stripped. A byte order mark is dropped, a line end inside a cell is one line feed, empty lines are
  no rows.
- Duplicate questions are kept, since published scores count them, and so are options with equal texts.
- Where several options may be right, lists may be short, start after A and have gaps, but letters must ascend;
  full-width letters become plain. A line that starts with no letter continues the option before it.
- Answers: upper case, full-width letters become plain, spaces and separators go, letters are sorted ("Ｂ,A" is AB).
- A row whose answer is blank or "nan" cannot be scored. It is skipped, as CMExam's authors do, listed in
  `Benchmark.reasons` and counted in the results; a shot without an answer gives its place to the next row.
- Everything else (blank cells, missing columns, an answer that is no option, …) is refused with file and line.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clmed.complaints import did_you_mean
from clmed.config import BenchmarkConfig
from clmed.data.exams import is_missing
from clmed.errors import UserError
from clmed.evaluation.benchmarks.exam import Benchmark, Exam, Item, Question, Record, as_text
from clmed.evaluation.benchmarks.registry import find
from clmed.evaluation.tables import Rows, read_categories

MOST_OPTIONS = 10  # where every set of them is an answer: 1,023 of ten


def load_benchmark(config: BenchmarkConfig, local: Path | None, shots_local: Path | None = None) -> Benchmark:
    """Read the benchmark of `config` from `local`, or from the hub where that is None.

    `shots_local` is the local file of `config.shots_from`. A file that cannot be read, a malformed row, missing shots
    or unknown subjects in categories.csv raise UserError.
    """
    exam = find(config)
    tables = exam.read(exam.layout, exam.name, config, local, "test")
    categories = read_categories(local, tables) if local is not None and local.is_dir() else {}
    questions, reasons = _questions(exam, tables, categories)
    if not questions:
        raise UserError(
            f"{local or config.path or exam.layout.hub} holds no questions with an answer; "
            f"the benchmark {exam.name} needs at least one."
        )
    questions = _asked(questions, config)
    shots: dict[str, tuple[Question, ...]] = {}
    if config.shots:
        names = dict.fromkeys(question.subject for question in questions)
        shots = _shots(exam, config, local, shots_local, names)
    return Benchmark(
        name=config.label,
        exam=exam,
        questions=_sample(questions, config.questions),
        population=tuple(questions) if config.questions is not None else (),
        shots=shots,
        scoring=config.scoring or exam.scoring,
        reasons=tuple(reasons),
    )


def _asked(questions: Sequence[Question], config: BenchmarkConfig) -> list[Question]:
    """The questions of the subjects and categories that the configuration asks for."""
    kinds = [{question.subject, *question.categories} for question in questions]
    known = sorted(set().union(*kinds))
    for name in [*config.only, *config.without]:
        if name not in known:
            raise UserError(f"{config.label}: there is no subject or category '{name}'{did_you_mean(name, known)}")
    only, without = set(config.only or known), set(config.without)
    asked = [question for question, of in zip(questions, kinds, strict=True) if of & only and not of & without]
    if not asked:
        raise UserError(f"{config.label}: `only` and `without` together leave no question to ask.")
    return asked


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
    exam: Exam, config: BenchmarkConfig, local: Path | None, shots_local: Path | None, names: Iterable[str]
) -> dict[str, tuple[Question, ...]]:
    """Every subject's first `config.shots` rows with an answer, in the order of dev, or of the file `shots_from`."""
    if config.shots_from is not None:
        if (shots_local or config.shots_from) == (local or config.path):
            raise UserError(
                f"{config.shots_from} is the test and `shots_from`, too: questions would show their answers."
            )
        config, local = config.model_copy(update={"path": config.shots_from}), shots_local
    elif local is not None and local.is_file():
        raise UserError(f"{config.label}: shots need `shots_from`, a file whose first rows are shown (not the test).")
    by_subject: defaultdict[str, list[Question]] = defaultdict(list)
    for question in _questions(exam, exam.read(exam.layout, exam.name, config, local, "dev"), {})[0]:
        by_subject[question.subject].append(question)
    for subject in names:
        if len(by_subject[subject]) < config.shots:
            raise UserError(
                f"{local or config.path or exam.layout.hub} has {len(by_subject[subject])} questions with an answer to "
                f"show for {subject}, but `shots` asks for {config.shots}; lower it or add questions."
            )
    return {subject: tuple(by_subject[subject][: config.shots]) for subject in names}


def _questions(
    exam: Exam, tables: Mapping[str, Rows], own_categories: Mapping[str, tuple[str, ...]]
) -> tuple[list[Question], list[str]]:
    """The questions of all tables that the exam asks, and why rows were skipped."""
    questions, reasons = [], []
    for subject, rows in tables.items():
        of_subject = own_categories.get(subject) or exam.categories(subject)
        annotations = exam.annotations(rows)
        for index, (place, record) in enumerate(rows):
            try:
                item = exam.parse(record)
                _check(exam, item)
            except ValueError as error:
                raise UserError(f"{place}: {error}; mend the row or delete it.") from error
            if not exam.keep(item):
                continue
            if not item.answer:
                reasons.append(f"{place}: no known answer")
                continue
            kinds = ("single" if len(item.answer) == 1 else "multiple",) if exam.several else ()
            categories = (*of_subject, *kinds, *_marks(record, annotations))
            questions.append(Question(**vars(item), subject=subject, index=index, categories=categories))
    return questions, reasons


def _check(exam: Exam, item: Item) -> None:
    """ValueError, with the reason, for a question that cannot be asked."""
    blank = [name for name, text in {"question": item.stem, **item.options}.items() if not text.strip()]
    if blank:
        raise ValueError("the question is blank" if blank[0] == "question" else f"option {blank[0]} is blank")
    if len(item.options) < 2:
        raise ValueError("there is only one option" if item.options else "there are no options")
    if exam.several and len(item.options) > MOST_OPTIONS:
        raise ValueError(f"{len(item.options)} options have too many sets to ask for each (at most {MOST_OPTIONS})")
    if len(item.answer) > 1 and not exam.several:
        raise ValueError(f"{exam.name} has one right option, not {item.answer}")


def _marks(record: Record, annotations: Sequence[str]) -> list[str]:
    return [f"{name}={as_text(record[name]).strip()}" for name in annotations if not is_missing(as_text(record[name]))]
