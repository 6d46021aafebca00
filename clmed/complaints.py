"""How mistakes in a configuration are told: where they were written, in the words of people who write YAML."""

import difflib
import json
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Loc = tuple[str | int, ...]  # the way to a value: ("stream", 0, "epochs")
Places = dict[Loc, str]  # where it was written: "experiments/replay.yaml, line 12"
Problem = tuple[Loc, str]

# Pydantic's word for what was expected -> ours.
EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section (lines of `key: value`)",
    "model_type": "a section (lines of `key: value`)",
    "string_pattern_mismatch": "letters, digits, dots, underscores and hyphens, beginning with a letter or digit",
    "finite_number": "a finite number",
    "too_short": "not empty",
    "string_too_short": "not empty",
}


class InvalidSectionsError(ValueError):
    """Several mistakes, each with the way to it."""

    def __init__(self, found: list[Problem]) -> None:
        super().__init__("; ".join(message for _, message in found))
        self.found = found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, or else all that are known."""
    known = list(known)
    nearest = difflib.get_close_matches(word, known, n=1)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f" (known: {', '.join(known)})" if known else ""


def dotted(loc: Loc) -> str:
    """("stream", 0, "epochs") -> "stream[0].epochs"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def shown(value: Any) -> str:
    """A value as YAML would write it, on one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(problems: Sequence[Problem], places: Places) -> str:
    """One problem a line, each after its place: that of its key, or else of the nearest section around it."""
    lines = []
    for loc, message in problems:
        place = next((places[loc[:n]] for n in range(len(loc), -1, -1) if loc[:n] in places), "configuration")
        lines.append(f"{place}: {message}")
    return "\n".join(lines)


def problems(error: ValidationError, schema: type[BaseModel]) -> list[Problem]:
    """What pydantic found in data that should fit `schema`."""
    return [problem for details in error.errors(include_url=False) for problem in _problems(details, schema)]


def _problems(details: ErrorDetails, schema: type[BaseModel]) -> list[Problem]:
    loc, kind = details["loc"], details["type"]
    section = f" in {dotted(loc[:-1])}" if loc[:-1] else ""
    if kind == "extra_forbidden":
        fields = _model_at(schema, loc[:-1]).model_fields
        known = [field.alias or name for name, field in fields.items()]
        return [(loc, f"unknown key '{loc[-1]}'{section}{did_you_mean(str(loc[-1]), known)}")]
    if kind == "missing":
        return [(loc, f"the key '{loc[-1]}' is missing{section}")]
    reason = details["ctx"]["error"] if kind == "value_error" else None
    if isinstance(reason, InvalidSectionsError):
        return reason.found
    if reason is None:
        default = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        reason = f"must be {EXPECTED.get(kind, default)}, not {shown(details['input'])}"
        if kind == "string_type" and isinstance(details["input"], int | float):
            reason += " (put it in quotes)"
        if kind == "literal_error":
            choices = details["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            nearest = difflib.get_close_matches(str(details["input"]), choices, n=1)
            reason += f"; did you mean '{nearest[0]}'?" if nearest else ""
    return [(loc, f"{dotted(loc)}: {reason}" if loc else str(reason))]


def _model_at(schema: Any, loc: Loc) -> type[BaseModel]:
    """The model that describes the section at `loc`: fields of models, items of lists and mappings, `Model | None`."""
    for step in loc:
        is_model = isinstance(schema, type) and issubclass(schema, BaseModel)
        schema = schema.model_fields[step].annotation if is_model else get_args(schema)[-1]
        if NoneType in get_args(schema):
            schema = get_args(schema)[0]
    return schema
