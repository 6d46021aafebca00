"""Runs as a comparison reads them: thousands in seconds, and one that is damaged does not hide the others."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from clmed.errors import UserError
from clmed.results.answers import Answers, read_answers
from clmed.results.metrics import WHOLE, primary_metrics
from clmed.results.rundir import CONFIG, LOADER, RESULTS, STATUS, Row, RunDirectory, is_run

State = Literal["running", "killed", "complete", "stopped", "damaged"]
# How the row of a whole benchmark is written: one line of a hundred, where there are subjects.
_WHOLE = f'"category": "{WHOLE}"'.encode()
_SECTION = re.compile(r"\n(?=[A-Za-z_])")


@dataclass(frozen=True, kw_only=True)
class Read:
    """rows: of whole benchmarks, in their primary metrics; problem: why it is damaged, or has no results; complaints:
    of answers that are damaged.
    """

    path: Path
    state: State
    config: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    problem: str = ""
    complaints: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def strategy(self) -> dict[str, Any]:
        return self.config.get("strategy") or {}

    @cached_property
    def last(self) -> int:
        """The last point at which every benchmark was measured, as `clmed.results.metrics.last_point`."""
        measured = [set(points) for points in self.scores.values()]
        return max(set.intersection(*measured), default=0) if measured else 0

    @cached_property
    def scores(self) -> dict[str, dict[int, Row]]:
        """benchmark -> point -> its row."""
        found: dict[str, dict[int, Row]] = {}
        for row in self.rows:
            found.setdefault(row["benchmark"], {})[row["point"]] = row
        return found

    @property
    def end(self) -> Row:
        """A row of the last point: what was trained until then."""
        return next(row for row in reversed(self.rows) if row["point"] == self.last)

    def answers(self, benchmark: str, point: int) -> Answers | None:
        """None where there are none that can be read."""
        try:
            return read_answers(RunDirectory(self.path), point, benchmark)
        except UserError as error:
            self.complaints.append(str(error))
            return None


def find(paths: Sequence[Path]) -> list[Path]:
    """The runs that are meant: runs, and those inside folders. Raises UserError where there is none."""
    found: list[Path] = []
    for path in paths:
        inside = [] if is_run(path) or not path.is_dir() else sorted(each.parent for each in path.glob(f"*/{STATUS}"))
        found += inside or [RunDirectory.open(path).path]
    if not found:
        raise UserError(
            "There is no run to compare: give the folders of runs, or the folder that holds them, such as runs; "
            "`clmed run FILE` makes one."
        )
    once: dict[Path, Path] = {}
    for each in found:
        once.setdefault(each.resolve(), each)
    return list(once.values())


def read(path: Path, buffer: bytearray | None = None) -> Read:
    """What there is of a run. buffer: memory for its results, which many runs can use one after the other."""
    run = RunDirectory(path)
    try:
        state: State = run.state()
    except (OSError, ValueError, KeyError):
        return Read(path=path, state="damaged", problem=f"{path / STATUS} cannot be read")
    try:
        config = _config(run)
        rows = _rows(path / RESULTS, bytearray() if buffer is None else buffer)
    except UserError as error:
        return Read(path=path, state="damaged", problem=str(error))
    if not rows:
        return Read(path=path, state=state, config=config, problem="it holds no results yet")
    return Read(path=path, state=state, config=config, rows=tuple(rows))


def _rows(file: Path, buffer: bytearray) -> list[Row]:
    """The rows of whole benchmarks. A last line without its end belongs to a killed run."""
    try:
        with file.open("rb", buffering=0) as stream:
            buffer.extend(bytes(max(0, os.fstat(stream.fileno()).st_size - len(buffer))))
            length = stream.readinto(buffer) or 0
    except FileNotFoundError:
        return []
    end = buffer.rfind(b"\n", 0, length) + 1
    rows = []
    for place, line in _lines_with(_WHOLE, buffer, end) if _is_sound(buffer, end) else _lines(buffer, end):
        try:
            row = json.loads(line.decode())
            if row["category"] == WHOLE:
                rows.append(row)
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{file}, {place} is damaged; mend or delete this line.") from None
    metrics = primary_metrics(rows)
    return [row for row in rows if row["metric"] == metrics[row["benchmark"]]]


def _is_sound(content: bytearray, end: int) -> bool:
    """Whether every line begins and ends as it should: then those that are not needed are not read."""
    letters = np.frombuffer(content, dtype=np.uint8, count=end)
    ends = np.flatnonzero(letters == ord("\n"))
    begin = letters[np.concatenate([[0], ends[:-1] + 1])] if end else letters
    return bool((begin == ord("{")).all() and (letters[ends - 1] == ord("}")).all())


def _lines(content: bytearray, end: int) -> Iterator[tuple[str, bytearray]]:
    """Each with where it is."""
    for number, line in enumerate(content[:end].split(b"\n")[:-1], start=1):
        yield f"line {number}", line


def _lines_with(part: bytes, content: bytearray, end: int) -> Iterator[tuple[str, bytearray]]:
    """Those that hold `part`."""
    at = content.find(part, 0, end)
    while at >= 0:
        start, stop = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
        yield f"the line at byte {start}", content[start:stop]
        at = content.find(part, stop, end)


def _config(run: RunDirectory) -> dict[str, Any]:
    """The configuration. Runs of a sweep have most sections in common, and each is parsed once."""
    try:
        text = (run.path / CONFIG).read_text(encoding="utf-8")
        config: dict[str, Any] = {}
        for section in _SECTION.split(text):
            config |= _section(section) or {}
        return config
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return run.config()  # which says what is wrong


@lru_cache(maxsize=4096)
def _section(text: str) -> Any:
    return yaml.load(text, Loader=LOADER)
