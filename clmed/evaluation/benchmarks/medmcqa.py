"""MedMCQA (Pal et al., 2022, arXiv 2203.14371): Indian medical entrance exams, 21 subjects.

The authors' files, one question a line (dev.json is what is asked: test.json has no answers): question, opa … opd, cop,
subject_name. Their `cop` counts the right option from 1, that of the hub's copy from 0 (-1: not known): all rows
together tell which it is. `choice_type` says how a question is worded; one option is right in any case.
"""

from pathlib import Path

from clmed.config import BenchmarkConfig
from clmed.evaluation.benchmarks.answers import read_answers
from clmed.evaluation.benchmarks.exam import Exam, Item, Record, as_text, clean, lettered
from clmed.evaluation.tables import Layout, Part, Rows, read_tables

OPTIONS = ("opa", "opb", "opc", "opd")


def read(layout: Layout, name: str, config: BenchmarkConfig, local: Path | None, part: Part) -> dict[str, Rows]:
    tables = read_tables(layout, name, config, local, part)
    rows = [row for table in tables.values() for row in table]
    letters = iter(
        read_answers(
            [place for place, _ in rows],
            ["" if as_text(record["cop"]) == "-1" else record["cop"] for _, record in rows],
            [lettered([record[option] for option in OPTIONS]) for _, record in rows],
            ("index", "number"),
        )
    )
    return {
        subject: [(place, {**record, "cop": next(letters)}) for place, record in table]
        for subject, table in tables.items()
    }


def parse(record: Record) -> Item:
    options = lettered([record[option] for option in OPTIONS])
    return Item(stem=clean(record["question"]), options=options, answer=record["cop"])


MEDMCQA = Exam(
    name="medmcqa",
    summary="21 medical subjects, English, four options",
    source="Pal et al. 2022, arXiv 2203.14371",
    layout=Layout(
        columns=("question", *OPTIONS, "cop", "subject_name"),
        hub="openlifescienceai/medmcqa",
        splits={"test": "validation", "dev": "train"},
        subject="subject_name",
    ),
    read=read,
    parse=parse,
)
