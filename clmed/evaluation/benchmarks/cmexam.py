"""CMExam (Liu et al., 2023, arXiv 2306.03030): the Chinese national medical licensing examination.

A file with the columns Question, Options (lines `A text`), Answer (one or several letters); on the hub, options may be
a list of {key, value}. The published test has no few-shot prompt: it is asked as it is trained, without a header.
"""

from collections import Counter

from clmed.data.exams import parse_answer, parse_options
from clmed.evaluation.benchmarks.exam import Exam, Item, Record, as_text
from clmed.evaluation.tables import Layout, Rows

KNOWN = {"", "Question", "Options", "Answer", "Explanation"}


def parse(record: Record) -> Item:
    options = parse_options(record["Options"])
    # Training strips the question, too, so that both see the same prompt.
    stem = as_text(record["Question"]).strip()
    return Item(
        stem=stem,
        options=options,
        answer=parse_answer(as_text(record["Answer"]), options),
        explanation=as_text(record.get("Explanation")).strip(),
    )


def annotations(rows: Rows) -> list[str]:
    """The further named columns in which some value occurs twice (so no ids): disease group, department, discipline,
    competency and difficulty, however a copy spells them."""
    columns = [column for column in (rows[0][1] if rows else ()) if column not in KNOWN]
    values = {column: [as_text(record[column]) for _, record in rows] for column in columns}
    return [name for name, cells in values.items() if any(n > 1 for cell, n in Counter(cells).items() if cell)]


CMEXAM = Exam(
    name="cmexam",
    summary="the Chinese medical licensing exam; one or several of up to five options",
    source="Liu et al. 2023, arXiv 2306.03030",
    layout=Layout(columns=("Question", "Options", "Answer"), hub="fzkuji/CMExam"),
    parse=parse,
    annotations=annotations,
    several=True,
    f1=("f1", "f1_macro", "f1_letters"),
)
