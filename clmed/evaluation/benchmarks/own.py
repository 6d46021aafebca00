"""`multiple_choice`: a file of the user's own, CSV, JSON, JSONL or Parquet, or a data set of the hub.

    - benchmark: multiple_choice
      name: ward-quiz
      path: ward.csv
      columns: {question: stem, choices: [a, b, c, d], answer: key, subject: topic}

Choices are one column (see `exam.options_of`) or several; of several, empty ones at the end are options that a question
lacks. An answer is a letter, the text of an option, an index (from 0) or a number (from 1): see `answers`.
"""

from pathlib import Path
from typing import Any

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.benchmarks.answers import WAYS, read_answers
from clmed.evaluation.benchmarks.exam import Exam, Item, Record, clean, lettered, options_of
from clmed.evaluation.tables import Layout, Part, Rows, read_tables

READ = ""  # the key of what was read: no column that can be asked for has it


def own(config: BenchmarkConfig) -> Exam:
    """The description of the benchmark that `config.columns` describe."""
    columns = config.columns
    named = [columns.question, columns.answer, *columns.choices, *columns.categories]
    named += [columns.subject] if columns.subject else []

    def read(layout: Layout, name: str, config: BenchmarkConfig, local: Path | None, part: Part) -> dict[str, Rows]:
        tables = read_tables(layout, name, config, local, part)
        rows = [row for table in tables.values() for row in table]
        options = [_options(place, record, columns.choices) for place, record in rows]
        ways = [columns.answer_as] if columns.answer_as else list(WAYS)
        cells = [_joined(record[columns.answer]) for _, record in rows]
        answers = read_answers([place for place, _ in rows], cells, options, ways)
        items = iter(zip(options, answers, strict=True))
        return {
            subject: [(place, {**record, READ: next(items)}) for place, record in table]
            for subject, table in tables.items()
        }

    def parse(record: Record) -> Item:
        options, answer = record[READ]
        return Item(stem=clean(record[columns.question]), options=options, answer=answer)

    return Exam(
        name="multiple_choice",
        summary="a file of your own",
        source="",
        layout=Layout(
            columns=tuple(dict.fromkeys(named)), subject=columns.subject, splits={"test": "test", "dev": "dev"}
        ),
        read=read,
        parse=parse,
        annotations=lambda rows: columns.categories,
        several=columns.several,
        f1=("f1", "f1_macro", "f1_letters") if columns.several else (),
    )


def _options(place: str, record: Record, choices: list[str]) -> dict[str, str]:
    """By letter. Raises UserError, with the place."""
    cells: list[Any] = [record[name] for name in choices]
    try:
        options = options_of(cells[0]) if len(cells) == 1 else lettered(cells)
        if not options:
            raise ValueError("there are no options")
        return options
    except ValueError as error:
        raise UserError(f"{place}: {error}; mend the row or delete it.") from error


def _joined(answer: Any) -> Any:
    """["A", "C"] as "A,C"."""
    return ",".join(map(str, answer)) if isinstance(answer, list) else answer
