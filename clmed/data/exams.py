"""The cells of an exam file in CMExam's format: options ("A text" lines) and answers ("ABD")."""

import re
from collections.abc import Mapping

_OPTION = re.compile(r"([A-Z])[\s.．、:：)）]\s*(.*)")


def is_missing(cell: str) -> bool:
    """Whether a cell holds nothing: CMExam was written with pandas, whose word for nothing is "nan"."""
    return cell.strip() in ("", "nan")


def parse_options(cell: str) -> dict[str, str]:
    """Letter -> text in the order of the file, from one option a line: "A text" (also "A. text", "A、text").

    Lists need not start at A nor be gapless (both occur in CMExam). A line without a letter continues the option
    before it. Raises ValueError, with the reason, when there are no options or a letter comes twice or out of order.
    """
    options: dict[str, str] = {}
    for line in filter(str.strip, cell.split("\n")):
        match = _OPTION.fullmatch(f"{line.strip()} ")  # the space stands for the text that an option may lack
        if match is None:
            if not options:
                raise ValueError(f"the options do not begin with a letter: {line[:40]!r}")
            last = next(reversed(options))
            options[last] = f"{options[last]}\n{line.strip()}".strip()
            continue
        letter, text = match[1], match[2].strip()
        if options and letter <= next(reversed(options)):
            raise ValueError(f"option {letter} comes after option {next(reversed(options))}")
        options[letter] = text
    if not options:
        raise ValueError("there are no options")
    return options


def parse_answer(cell: str, options: Mapping[str, str]) -> str:
    """The letters of the right options, sorted ("BAD" -> "ABD"); "" when the answer is missing.

    Raises ValueError, with the reason, for anything that is not a set of letters of `options`.
    """
    if is_missing(cell):
        return ""
    letters = sorted(re.sub(r"[\s,，、;；]", "", cell))
    for letter in letters:
        if letter not in options:
            raise ValueError(f"the answer {cell.strip()!r} is no letter of the options {', '.join(options)}")
    if len(set(letters)) < len(letters):
        raise ValueError(f"the answer {cell.strip()!r} names an option twice")
    return "".join(letters)
