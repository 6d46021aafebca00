"""The cells of an exam file in CMExam's format: options ("A text" lines) and answers ("ABD").

Training and benchmarks read them by these functions, so that what one of them understands the other does, too. Letters
may be full-width ("Ａ"), as Chinese keyboards write them.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_OPTION = re.compile(r"([A-ZＡ-Ｚ])[\s.．、:：)）]\s*(.*)")


def is_missing(cell: str) -> bool:
    """Whether a cell holds nothing: CMExam was written with pandas, whose word for nothing is "nan"."""
    return cell.strip() in ("", "nan")


def parse_options(cell: Any) -> dict[str, str]:
    """Letter -> text in the order of the file, from one option a line: "A text" (also "A. text", "A、text").

    A list of {key, value}, as the hub's copy of CMExam has it, is read like its lines. Lists need not start at A nor be
    gapless (both occur in CMExam). A line without a letter continues the option before it. Raises ValueError, with the
    reason, when there are no options or a letter comes twice or out of order.
    """
    options: dict[str, str] = {}
    for line in filter(str.strip, _lines(cell)):
        match = _OPTION.fullmatch(f"{line.strip()} ")  # the space stands for the text that an option may lack
        if match is None:
            if not options:
                raise ValueError(f"the options do not begin with a letter: {line[:40]!r}")
            last = next(reversed(options))
            options[last] = f"{options[last]}\n{line.strip()}".strip()
            continue
        letter, text = unicodedata.normalize("NFKC", match[1]), match[2].strip()
        if options and letter <= next(reversed(options)):
            raise ValueError(f"option {letter} comes after option {next(reversed(options))}")
        options[letter] = text
    if not options:
        raise ValueError("there are no options")
    return options


def parse_answer(cell: str, options: Mapping[str, str]) -> str:
    """The letters of the right options, sorted ("Ｂ, a" -> "AB"); "" when the answer is missing.

    Raises ValueError, with the reason, for anything that is not a set of letters of `options`.
    """
    if is_missing(cell):
        return ""
    letters = sorted(re.sub(r"[\s,、;]", "", unicodedata.normalize("NFKC", cell)).upper())
    for letter in letters:
        if letter not in options:
            raise ValueError(f"the answer {cell.strip()!r} is no letter of the options {', '.join(options)}")
    if len(set(letters)) < len(letters):
        raise ValueError(f"the answer {cell.strip()!r} names an option twice")
    return "".join(letters)


def _lines(cell: Any) -> list[str]:
    if isinstance(cell, list):
        return [line for option in cell for line in _line(option).split("\n")]
    return [] if cell is None or cell != cell else str(cell).split("\n")  # not-a-number: a missing cell


def _line(option: Any) -> str:
    if isinstance(option, str):
        return option
    if not isinstance(option, Mapping) or not {"key", "value"} <= set(option):
        raise ValueError(f"an option is neither a line 'A text' nor {{key, value}}: {str(option)[:40]}")
    return f"{option['key']} {option['value'] or ''}"
