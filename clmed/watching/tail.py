"""What is new in a file that grows by whole lines of JSON, read from where the last look ended."""

import json
import os
from pathlib import Path
from typing import Any


class Tail:
    """The rows added since the last look.

    A last line without its end is left for the next look. A file that was replaced (a run that goes on cuts off what
    was written after its checkpoint) or has become shorter is read anew. most: of a file that is longer than that many
    bytes at the first look, only the rows at its end are read.

    damaged: lines that are no rows, so far; torn: whether the last line has no end; trouble: why it cannot be read.
    """

    def __init__(self, file: Path, most: int | None = None) -> None:
        self.file, self.most = file, most
        self.known: tuple[int, int] | None = None  # device and number of the file
        self.read = 0
        self.damaged = 0
        self.torn = False
        self.trouble = ""

    def rows(self) -> tuple[list[dict[str, Any]], bool]:
        """The new rows, and whether they replace all that came before."""
        try:
            with self.file.open("rb") as stream:
                found = os.fstat(stream.fileno())
                fresh = (found.st_dev, found.st_ino) != self.known or found.st_size < self.read
                if fresh:
                    self.known, self.read, self.damaged = (found.st_dev, found.st_ino), 0, 0
                    if self.most is not None and found.st_size > self.most:
                        self.read = found.st_size - self.most
                        stream.seek(self.read)
                        self.read += len(stream.readline())  # the rest of a line whose beginning is not read
                stream.seek(self.read)
                lines = stream.read()
        except FileNotFoundError:
            gone, self.known, self.read, self.damaged = self.known is not None, None, 0, 0
            return [], gone
        except OSError as error:
            self.trouble = error.strerror or "it cannot be read"
            return [], False
        whole = lines[: lines.rfind(b"\n") + 1]
        self.read += len(whole)
        self.torn, self.trouble = len(whole) < len(lines), ""
        rows = [_row(line) for line in whole.split(b"\n")[:-1]]
        self.damaged += rows.count(None)
        return [row for row in rows if row is not None], fresh


def _row(line: bytes) -> dict[str, Any] | None:
    """None for a damaged line: who watches wants to see the others."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
