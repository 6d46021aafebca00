"""ARC-Easy (Clark et al., 2018, arXiv 1803.05457) and PIQA (Bisk et al., 2020, arXiv 1911.11641).

Both are general abilities that small models have, and are asked by text. Each is read in its authors' form, in the
hub's, and as question, choices (a list of texts), answer (an index). In ARC, options called 1 to 4 become A to D. The
labels of PIQA's authors lie beside their questions: valid.jsonl has valid-labels.lst.
"""

from pathlib import Path

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.benchmarks.exam import Exam, Item, Record, as_text, clean, lettered, options_of, right_letters
from clmed.evaluation.tables import Layout, Part, Rows, read_tables


def parse_simple(record: Record) -> Item:
    """question, choices, answer (an index from 0)."""
    options = options_of(record["choices"])
    return Item(stem=clean(record["question"]), options=options, answer=right_letters(record["answer"], options))


def parse_arc(record: Record) -> Item:
    asked = record["question"]
    choices = asked.get("choices") if isinstance(asked, dict) else record.get("choices")
    if choices is None:
        raise ValueError("there are no choices")
    if "answerKey" not in record:
        return parse_simple(record)
    labels = choices["label"] if isinstance(choices, dict) else [choice["label"] for choice in choices]
    key = clean(record["answerKey"])
    if key and key not in labels:
        raise ValueError(f"the answer {key!r} is no label of the options {', '.join(labels)}")
    options = options_of(choices)
    return Item(
        stem=clean(asked["stem"] if isinstance(asked, dict) else asked),
        options=options,
        answer=dict(zip(labels, options, strict=True))[key] if key else "",
    )


def read_piqa(layout: Layout, name: str, config: BenchmarkConfig, local: Path | None, part: Part) -> dict[str, Rows]:
    rows = read_tables(layout, name, config, local, part)[name]
    labels = local.with_name(f"{local.stem}-labels.lst") if local is not None else None
    if labels is not None and labels.exists():
        lines = labels.read_text(encoding="utf-8").split()
        if len(lines) != len(rows):
            raise UserError(f"{labels} holds {len(lines)} labels for the {len(rows)} questions of {local}.")
        rows = [(place, {**record, "label": line}) for (place, record), line in zip(rows, lines, strict=True)]
    return {name: rows}


def parse_piqa(record: Record) -> Item:
    if "goal" not in record:
        if not {"question", "choices", "answer"} <= set(record):
            raise ValueError("there is neither goal, sol1, sol2, label nor question, choices, answer")
        return parse_simple(record)
    options = lettered([record["sol1"], record["sol2"]])
    label = as_text(record.get("label", "")).strip()
    if label not in ("", "-1", "0", "1"):
        raise ValueError(f"the label {label!r} is neither 0 nor 1")
    return Item(stem=clean(record["goal"]), options=options, answer={"0": "A", "1": "B"}.get(label, ""))


ARC_EASY = Exam(
    name="arc_easy",
    summary="school science, English, three to five options",
    source="Clark et al. 2018, arXiv 1803.05457",
    layout=Layout(columns=("question",), hub="allenai/ai2_arc", subset="ARC-Easy"),
    parse=parse_arc,
    scoring="text",
)
PIQA = Exam(
    name="piqa",
    summary="physical common sense, English, two options",
    source="Bisk et al. 2020, arXiv 1911.11641",
    layout=Layout(columns=(), hub="baber/piqa", splits={"test": "validation", "dev": "train"}),
    read=read_piqa,
    parse=parse_piqa,
    scoring="text",
)
