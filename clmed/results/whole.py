"""The scores of whole benchmarks out of a results.jsonl, without parsing the hundred lines of subjects beside each."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clmed.errors import UserError
from clmed.results.files import unreadable
from clmed.results.metrics import WHOLE, primary_metrics
from clmed.results.rundir import Row
from clmed.results.sound import wrong_score

# How the row of a whole benchmark is written: one line of a hundred, where there are subjects.
_WHOLE = f'"category": "{WHOLE}"'.encode()


def whole_rows(file: Path, buffer: bytearray) -> list[Row]:
    """The rows of whole benchmarks in their primary metrics; none where nothing was written yet.

    buffer: memory that many files can use one after the other. A last line without its end belongs to a killed run;
    raises UserError for other damage.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            buffer.extend(bytes(max(0, os.fstat(stream.fileno()).st_size - len(buffer))))
            length = stream.readinto(buffer) or 0
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(file, error) from error
    end = buffer.rfind(b"\n", 0, length) + 1
    rows = []
    for start, line in _lines_with(_WHOLE, buffer, end) if _is_sound(buffer, end) else _lines(buffer, end):
        try:
            row = json.loads(line.decode())
            if wrong := wrong_score(row):
                raise ValueError(wrong)
        except ValueError as error:
            number = buffer.count(b"\n", 0, start) + 1
            raise UserError(f"{file}, line {number} is damaged ({error}); mend or delete this line.") from None
        if row["category"] == WHOLE:
            rows.append(row)
    metrics = primary_metrics(rows)
    return [row for row in rows if row["metric"] == metrics[row["benchmark"]]]


def _is_sound(content: bytearray, end: int) -> bool:
    """Whether every line begins and ends as it should: then those that are not needed are not read."""
    letters = np.frombuffer(content, dtype=np.uint8, count=end)
    ends = np.flatnonzero(letters == ord("\n"))
    begin, finish = letters[ends[:-1] + 1], letters[ends - 1]
    return bool((letters[:1] == ord("{")).all() and (begin == ord("{")).all() and (finish == ord("}")).all())


def _lines(content: bytearray, end: int) -> Iterator[tuple[int, bytearray]]:
    """Each with the byte at which it begins."""
    start = 0
    for line in content[:end].split(b"\n")[:-1]:
        yield start, line
        start += len(line) + 1


def _lines_with(part: bytes, content: bytearray, end: int) -> Iterator[tuple[int, bytearray]]:
    """Those that hold `part`."""
    at = content.find(part, 0, end)
    while at >= 0:
        start, stop = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
        yield start, content[start:stop]
        at = content.find(part, stop, end)
