"""MedQA (Jin et al., 2020, arXiv 2009.13081): medical licensing exams of the USA, mainland China and Taiwan.

The authors' files, one question a line: US/test.jsonl (five options), US/4_options/phrases_no_exclude_test.jsonl,
Mainland/test.jsonl (simplified Chinese), Mainland/4_options/test.jsonl: question, options {letter: text}, answer_idx,
and meta_info (which exam), whose values are categories. On the hub, options may be a list of {key, value}. `path` names
one of the files; without it the hub's copy of the US questions with four options is read.
"""

from clmed.evaluation.benchmarks.exam import Exam, Item, Record, clean, options_of, right_letters
from clmed.evaluation.tables import Layout, Rows


def parse(record: Record) -> Item:
    options = options_of(record["options"])
    return Item(stem=clean(record["question"]), options=options, answer=right_letters(record["answer_idx"], options))


def annotations(rows: Rows) -> list[str]:
    return ["meta_info"] if rows and all("meta_info" in record for _, record in rows) else []


MEDQA = Exam(
    name="medqa",
    summary="licensing exams with patients' histories, English or Chinese, four or five options",
    source="Jin et al. 2020, arXiv 2009.13081",
    layout=Layout(columns=("question", "options", "answer_idx"), hub="GBaker/MedQA-USMLE-4-options"),
    parse=parse,
    annotations=annotations,
)
