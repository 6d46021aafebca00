"""The runs of a report as they are: complete, still going, killed, stopped, damaged, or without results."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from clmed.errors import UserError
from clmed.results.metrics import Key, last_point, matrix
from clmed.results.rundir import Row, RunDirectory

T = TypeVar("T")

# What a reader should make of a run that is not complete.
STATES = {
    "complete": "",
    "running": "still going: the figures are those of its last complete measurement",
    "killed": "killed before its end; the same `clmed run` command goes on from its newest checkpoint",
    "stopped": "stopped before its end; the same `clmed run` command goes on from its newest checkpoint",
    "damaged": "a file of it is damaged: what could be read is shown",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportedRun:
    """One run. Files that cannot be read count as empty; `problems` says so in plain words."""

    path: Path
    directory: RunDirectory
    problems: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> "ReportedRun":
        """Raises UserError where there is no run."""
        return cls(path=path, directory=RunDirectory.open(path))

    @cached_property
    def config(self) -> dict[str, Any]:
        return self._read(self.directory.config, {})

    @cached_property
    def rows(self) -> list[Row]:
        return self._read(self.directory.results, [])

    @cached_property
    def training(self) -> list[Row]:
        return self._read(self.directory.training, [])

    @cached_property
    def environment(self) -> dict[str, Any]:
        return self._read(self.directory.environment, {})

    @cached_property
    def scores(self) -> dict[Key, dict[int, float]]:
        """R of all benchmarks, categories and metrics."""
        return matrix(self.rows)

    @cached_property
    def last(self) -> int:
        """The last point at which every benchmark was measured."""
        return last_point(self.rows)

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def strategy(self) -> str:
        return ", ".join(self.config.get("strategy") or {}) or "naive"

    @property
    def state(self) -> str:
        """complete, running, killed, stopped or damaged."""
        _ = self.config, self.rows, self.training, self.environment
        return "damaged" if self.problems else self.directory.state()

    @property
    def reason(self) -> str:
        return str(self.directory.status().get("reason") or "")

    def _read(self, read: Callable[[], T], empty: T) -> T:
        try:
            return read()
        except UserError as error:
            self.problems.append(str(error))
            return empty
