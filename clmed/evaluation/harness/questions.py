"""The questions of a task as they are looked for in training text, without a model."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval.utils import apply_template

from clmed.config import BenchmarkConfig
from clmed.data.contamination import Asked
from clmed.evaluation.harness.suite import load_tasks, undisturbed

LABELS = re.compile(r"^(question|q)\s*:\s*|\s*\b(answer|a)\s*:\s*$", re.IGNORECASE)
"""What a prompt writes around a question, and other text does not."""


def questions(config: BenchmarkConfig, local: Path | None) -> list[Asked]:
    """Every question of `config.task`, also those that a sample leaves out; `index` is its row, as in the record.

    local: a folder of the user's own task files. Raises UserError where the questions cannot be had.
    """
    found = []
    with undisturbed():
        _, tasks, _ = load_tasks(config, local)
        for name, task in tasks.items():
            for index, doc in enumerate(task.eval_docs):
                stem, options, right = parts(task, doc)
                found.append(
                    Asked(benchmark=config.label, subject=name, index=index, stem=stem, options=options, right=right)
                )
    return found


def parts(task: Any, doc: Mapping[str, Any]) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """What is asked, the answers that are shown or compared, and which of them are right.

    The stem is what the task's file names for this purpose (`doc_to_decontamination_query`), or else what it asks; of a
    text that is only read, the text.
    """
    target = task.doc_to_target(doc)
    options = [str(choice) for choice in task.doc_to_choice(doc)] if task.OUTPUT_TYPE == "multiple_choice" else []
    named = _named(task.config.doc_to_decontamination_query, doc)
    asked = task.doc_to_text(doc) if named is None else named
    if isinstance(asked, int):  # several beginnings of one end
        return f"{options[asked]} {target}", (), ()
    stem = LABELS.sub("", str(asked)) or str(target)
    if options:
        places = target if isinstance(target, list) else [target]
        right = [options.index(place) if place in options else place for place in places]
        return stem, tuple(options), tuple(place for place in right if isinstance(place, int) and place < len(options))
    answers = target if isinstance(target, list) else [target]
    return stem, tuple(map(str, answers[:1])), (0,) if answers else ()


def _named(query: Any, doc: Mapping[str, Any]) -> str | None:
    """A field, a template or a function. (The harness's own reading of it takes the text of a template for Python.)"""
    if callable(query):
        return str(query(doc))
    if not isinstance(query, str):
        return None
    return str(doc[query] if query in doc else apply_template(query, doc))
