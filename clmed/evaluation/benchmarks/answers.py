"""Answers in a column: letters, texts of options, or numbers that count from 0 or from 1?

A file is read in one way. Which one is told by all its answers together: "4" of four options cannot count from 0, and
"0" cannot count from 1. Where two ways fit every row and disagree on some, the file is refused rather than guessed at.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clmed.data.exams import is_missing, parse_answer
from clmed.errors import UserError
from clmed.evaluation.benchmarks.exam import as_text

Options = Mapping[str, str]


def _letter(answer: str, options: Options) -> str:
    return parse_answer(answer, options)


def _text(answer: str, options: Options) -> str:
    found = [letter for letter, text in options.items() if text.strip() == answer.strip()]
    if len(found) != 1:
        raise ValueError(f"the answer {answer.strip()[:40]!r} is the text of {len(found) or 'no'} options")
    return found[0]


def _index(answer: str, options: Options) -> str:
    return _counted(answer, options, 0)


def _number(answer: str, options: Options) -> str:
    return _counted(answer, options, 1)


def _counted(answer: str, options: Options, first: int) -> str:
    letters = list(options)
    whole = re.fullmatch(r"(\d+)(\.0)?", answer.strip())  # pandas writes 2.0 where an answer is missing elsewhere
    place = int(whole[1]) - first if whole else -1
    if not 0 <= place < len(letters):
        last = len(letters) - 1 + first
        raise ValueError(f"the answer {answer.strip()[:40]!r} is no option: those count from {first} to {last}")
    return letters[place]


WAYS: Mapping[str, Callable[[str, Options], str]] = {
    "letter": _letter,
    "text": _text,
    "index": _index,
    "number": _number,
}


def read_answers(
    places: Sequence[str], cells: Sequence[Any], options: Sequence[Options], ways: Sequence[str]
) -> list[str]:
    """The right letters of each row, "" where no answer is given; `ways` are those that may be meant.

    Raises UserError, with the place, for an answer that is no option, and where the way cannot be told.
    """
    read = {way: [_try(way, *each) for each in zip(map(as_text, cells), options, strict=True)] for way in ways}
    failures = {way: [isinstance(found, ValueError) for found in rows] for way, rows in read.items()}
    best = min(ways, key=lambda way: sum(failures[way]))
    for index, (place, found) in enumerate(zip(places, read[best], strict=True)):
        if isinstance(found, ValueError):
            why = found if "text" not in ways or not _twice(cells[index], options[index]) else read["text"][index]
            raise UserError(f"{place}: {why}; mend the row or delete it.")
    fitting = [way for way in ways if not any(failures[way])]
    for index, place in enumerate(places):
        if len({read[way][index] for way in fitting}) > 1:
            raise UserError(
                f"{place}: the answer {as_text(cells[index])!r} may be meant as {' or as '.join(fitting)} (an index "
                f"counts from 0, a number from 1), and no other row tells which. Read the file as multiple_choice with "
                f"`columns: {{answer_as: {fitting[0]}}}`, or with another of these words."
            )
    return [str(found) for found in read[best]]


def _twice(cell: Any, options: Options) -> bool:
    """Whether the answer is the text of several options, which then is what is wrong with it."""
    return [text.strip() for text in options.values()].count(as_text(cell).strip()) > 1


def _try(way: str, answer: str, options: Options) -> str | ValueError:
    if is_missing(answer):
        return ""
    try:
        return WAYS[way](answer, options)
    except ValueError as error:
        return error
