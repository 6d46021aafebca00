"""PubMedQA (Jin et al., 2019, arXiv 1909.06146): does an abstract answer its question with yes, no or maybe?

The authors' folder: ori_pqal.json (1,000 questions labelled by experts, by PubMed id) and test_ground_truth.json (the
ids of the 500 that are the test; shots come from the others). A folder without the second file, the first file alone
and the hub's copy, which does not say which are the test, are asked whole. The conclusion of the abstract
(LONG_ANSWER), which gives the answer away, is never shown; accuracy and macro F1 are reported, as the authors do.
"""

import json
from pathlib import Path
from typing import Any

from clmed.config import BenchmarkConfig
from clmed.data.templates import ask_by_letter, ask_by_text
from clmed.errors import UserError
from clmed.evaluation.benchmarks.exam import Exam, Item, Record, clean
from clmed.evaluation.tables import Layout, Part, Rows, read_tables

CHOICES = {"A": "yes", "B": "no", "C": "maybe"}
QUESTIONS, TEST = "ori_pqal.json", "test_ground_truth.json"


def read(layout: Layout, name: str, config: BenchmarkConfig, local: Path | None, part: Part) -> dict[str, Rows]:
    if local is None:
        tables = read_tables(layout, name, config, None, part)
        return {name: [(place, _of_the_hub(record)) for place, record in tables[name]]}
    file = local / QUESTIONS if local.is_dir() else local
    questions = _mapping(file)
    chosen = list(questions)
    if local.is_dir() and (local / TEST).exists():
        test = _mapping(local / TEST)
        if missing := [key for key in test if key not in questions]:
            raise UserError(f"{local / TEST} names {missing[0]}, which is not in {file}.")
        chosen = [key for key in questions if (key in test) == (part == "test")]
    rows: Rows = []
    for key in chosen:
        record, place = questions[key], f"{file}, record {key}"
        if not isinstance(record, dict) or not {"QUESTION", "CONTEXTS", "final_decision"} <= set(record):
            raise UserError(f"{place} lacks QUESTION, CONTEXTS or final_decision.")
        rows.append((place, record))
    return {name: rows}


def _of_the_hub(record: Record) -> Record:
    contexts = record["context"]["contexts"]
    return {"QUESTION": record["question"], "CONTEXTS": contexts, "final_decision": record["final_decision"]}


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file} is no JSON in UTF-8: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must map PubMed ids to questions, as the authors' {QUESTIONS} does.")
    return content


def parse(record: Record) -> Item:
    decision = clean(record["final_decision"]).lower()
    letters = {text: letter for letter, text in CHOICES.items()} | {"": ""}
    if decision not in letters:
        raise ValueError(f"the answer {decision[:40]!r} is none of yes, no and maybe")
    context = "\n".join(map(clean, record["CONTEXTS"]))
    return Item(stem=clean(record["QUESTION"]), options=CHOICES, answer=letters[decision], context=context)


def _after_abstract(question: Item, asked: str) -> str:
    return f"Abstract: {question.context}\n{asked}"


PUBMEDQA = Exam(
    name="pubmedqa",
    summary="yes, no or maybe, from an abstract; English",
    source="Jin et al. 2019, arXiv 1909.06146",
    layout=Layout(
        columns=("question", "context", "final_decision"),
        hub="qiaojin/PubMedQA",
        subset="pqa_labeled",
        splits={"test": "train", "dev": "train"},
        file=QUESTIONS,
    ),
    read=read,
    parse=parse,
    by_letter=lambda question: _after_abstract(question, ask_by_letter(question.stem, question.options)),
    by_text=lambda question: _after_abstract(question, ask_by_text(question.stem)),
    f1=("f1_macro",),
    scoring="text",
)
