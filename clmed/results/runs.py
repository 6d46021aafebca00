"""Runs as they lie on the disk, whole or not: what compare, plot, report and diagnose read.

Thousands are read in seconds, and one that is damaged does not hide the others.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

from clmed.errors import UserError
from clmed.results.answers import Answers, read_answers, sound_answers
from clmed.results.files import is_torn
from clmed.results.metrics import Key, matrix
from clmed.results.rundir import (
    CONFIG,
    LOADER,
    RESULTS,
    SOURCES,
    STATUS,
    TRAIN,
    VARIANTS,
    Row,
    RunDirectory,
    is_run,
)
from clmed.results.sound import sound_scores, sound_steps, wrong_config, wrong_source
from clmed.results.whole import whole_rows

T = TypeVar("T")
State = Literal["running", "killed", "complete", "stopped", "damaged"]
# What a reader should make of a run that is not complete.
_STATES: dict[State, str] = {
    "running": "is still going: what it shows may change",
    "killed": "was killed before its end; the same `clmed run` goes on with it",
    "stopped": "was stopped before its end; the same `clmed run` goes on with it",
}
_SECTION = re.compile(r"\n(?=[A-Za-z_])")


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run; each file is read when it is first asked for. What cannot be read counts as empty, and `problems` says so.

    buffer: memory for its results, which many runs can use one after the other.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    buffer: bytearray = field(default_factory=bytearray, repr=False)

    @cached_property
    def directory(self) -> RunDirectory:
        return RunDirectory(self.path)

    @cached_property
    def config(self) -> dict[str, Any]:
        return self._read(lambda: _config(self.directory), {})

    @cached_property
    def whole(self) -> list[Row]:
        """The rows of whole benchmarks, in their primary metrics."""
        self._tell_if_torn(RESULTS)
        return self._read(lambda: whole_rows(self.path / RESULTS, self.buffer), [])

    @cached_property
    def rows(self) -> list[Row]:
        """Those of categories, subjects and other metrics, too."""
        return self._read(lambda: sound_scores(self.directory), [])

    @cached_property
    def variants(self) -> list[Row]:
        return self._read(lambda: sound_scores(self.directory, VARIANTS), [])

    @cached_property
    def training(self) -> list[Row]:
        self._tell_if_torn(TRAIN)
        return self._read(lambda: sound_steps(self.directory), [])

    @cached_property
    def environment(self) -> dict[str, Any]:
        return self._read(self.directory.environment, {})

    @cached_property
    def sources(self) -> dict[str, dict[str, Any]]:
        """What the base makes of each source."""
        return self._read(lambda: _sources(self.directory), {})

    @cached_property
    def matrix(self) -> dict[Key, dict[int, float]]:
        """R of all benchmarks, categories and metrics."""
        return matrix(self.rows)

    @cached_property
    def scores(self) -> dict[str, dict[int, Row]]:
        """Whole benchmark -> point -> its row."""
        found: dict[str, dict[int, Row]] = {}
        for row in self.whole:
            found.setdefault(row["benchmark"], {})[row["point"]] = row
        return found

    @cached_property
    def last(self) -> int:
        """The last point at which every benchmark was measured, as `clmed.results.metrics.last_point`."""
        measured = [set(points) for points in self.scores.values()]
        return max(set.intersection(*measured), default=0) if measured else 0

    @property
    def end(self) -> Row:
        """A row of the last point: what was trained until then."""
        return next(row for row in reversed(self.whole) if row["point"] == self.last)

    @cached_property
    def stream(self) -> dict[str, int]:
        """Experience -> domain tokens at its end (or so far)."""
        return {row["experience"]: row["tokens"] for row in self.whole if row["point"] > 0}

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def strategy(self) -> dict[str, Any]:
        return self.config.get("strategy") or {}

    @property
    def state(self) -> State:
        """damaged: something of what was asked for cannot be read."""
        _ = self._status, self.config, self.whole
        return "damaged" if self.problems else self._status

    @property
    def ended(self) -> bool:
        """Whether it came to its end and its scores tell of it, though other files be damaged."""
        return self._status == "complete" and bool(self.config and self.whole)

    @property
    def doing(self) -> str:
        """How far it is, of a run that is not complete or has no results: what can be said behind its name."""
        _ = self.state
        parts = [] if self.whole or self.problems else [self._nothing]
        if self._status in _STATES:
            reason = str(self.directory.status().get("reason") or "")
            parts.append(_STATES[self._status] + (f" ({reason})" if reason else ""))
        return "; ".join(parts)

    @property
    def _nothing(self) -> str:
        """Behind its name, why there are no results."""
        if self._status != "complete":
            return "holds no results yet"
        evaluation = self.config.get("evaluation") or {}
        if not (evaluation.get("gain") or evaluation.get("retention")):
            return "is complete and has measured nothing: no benchmark stands under evaluation.gain or .retention"
        return f"is complete, but its {RESULTS} holds no scores"

    @property
    def told(self) -> str:
        """The same, and what of it cannot be read."""
        doing = self.doing
        damage = f"is damaged: {'; '.join(self.problems)}" if self.problems else ""
        return "; ".join(filter(None, [doing, damage]))

    @property
    def unscored(self) -> str:
        """Which scores are no numbers, and why, behind its name; nothing where all are."""
        found = [
            f"{name} at point {', '.join(map(str, points))}"
            for name, rows in self.scores.items()
            if (points := [point for point, row in rows.items() if not math.isfinite(row["score"])])
        ]
        if not found:
            return ""
        return (
            f"has no number (NaN) as its score of {', '.join(found)}: what the model put out was none, as after a "
            "training that diverged (see loss and grad_norm in train.jsonl), so there is no change and no test"
        )

    def answers(self, benchmark: str, point: int) -> Answers | None:
        """None where there are none that can be read."""
        return self._read(lambda: read_answers(self.directory, point, benchmark), None)

    def columns(self, benchmark: str, point: int, names: Collection[str]) -> dict[str, list[Any]] | None:
        """Its answers as they were kept; None where there are none that can be read."""
        if not self.directory.has_answers(point, benchmark):
            return None
        return self._read(lambda: sound_answers(self.directory, point, benchmark, names), None)

    @cached_property
    def _status(self) -> State:
        try:
            if (state := self.directory.state()) in get_args(State):
                return state
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.problems.append(f"{self.path / STATUS} cannot be read")
        return "damaged"

    def _tell_if_torn(self, name: str) -> None:
        """A line that is cut off is what a killed run leaves; one that came to its end has none."""
        if self._status == "complete" and is_torn(self.path / name):
            self.problems.append(f"{self.path / name} is damaged: its last line is cut off; delete what is left of it")

    def _read(self, read: Callable[[], T], empty: T) -> T:
        try:
            return read()
        except UserError as error:
            if str(error).rstrip(".") not in self.problems:  # a file may be read twice
                self.problems.append(str(error).rstrip("."))
            return empty


def find(paths: Sequence[Path]) -> list[Path]:
    """The runs that are meant: runs, and those inside folders, each once. Raises UserError where there is none."""
    found: list[Path] = []
    for path in paths:
        inside = [] if is_run(path) or not path.is_dir() else sorted(each.parent for each in path.glob(f"*/{STATUS}"))
        found += inside or [path if (path / STATUS).exists() else RunDirectory.open(path).path]
    if not found:
        raise UserError(
            "No run is given: name the folders of runs, or the folder that holds them, such as runs; "
            "`clmed run FILE` makes one."
        )
    once: dict[Path, Path] = {}
    for each in found:
        once.setdefault(each.resolve(), each)
    return list(once.values())


def open_runs(paths: Iterable[Path | str]) -> list[Run]:
    """The runs that are meant (`find`). Raises UserError where there is none."""
    buffer = bytearray()
    return [Run(path=path, buffer=buffer) for path in find([Path(path) for path in paths])]


def nothing_measured(runs: Sequence[Run], what: str) -> UserError:
    """Why none of the runs can be reported (plotted): none has been measured, or what was cannot be read."""
    if len(runs) > 1:
        lines = "\n".join(f"  {run.path} {run.told}" for run in runs[:8])
        return UserError(f"None of the {len(runs)} runs holds results that can be {what}:\n{lines}")
    (run,) = runs
    if run.problems:
        return UserError(f"{run.path} cannot be {what}: {'; '.join(run.problems)}.")
    if run.state == "complete":
        return UserError(
            f"{run.path} cannot be {what}: it {run.doing}. `clmed evaluate` measures its model; "
            "`clmed run FILE --overwrite` begins the run anew."
        )
    return UserError(
        f"{run.path} holds no results yet ({run.state}); it can be {what} after its first measurement: go on with the "
        "same `clmed run` command."
    )


def _config(run: RunDirectory) -> dict[str, Any]:
    """The configuration. Raises UserError where it is damaged."""
    config = _parsed(run)
    if wrong := wrong_config(config):
        raise UserError(f"{run.path / CONFIG} is damaged: {wrong}.")
    return config


def _sources(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """What was noted of each source. Raises UserError where it is damaged."""
    sources = run.sources()
    for name, known in sources.items():
        if wrong := wrong_source(known):
            raise UserError(f"{run.path / SOURCES} is damaged at {name}: {wrong}.")
    return sources


def _parsed(run: RunDirectory) -> dict[str, Any]:
    """Runs of a sweep have most sections in common, and each is parsed once."""
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
