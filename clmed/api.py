"""clmed from Python and notebooks: run an experiment, look at runs as data frames and figures, compare them.

docs/notebooks.md shows it; `import clmed` gives the same names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clmed import validation
from clmed.complaints import did_you_mean
from clmed.config import dump
from clmed.errors import UserError
from clmed.results import comparison, frames, metrics, plots
from clmed.results.rundir import Row, RunDirectory
from clmed.results.sound import sound_scores, sound_steps
from clmed.results.table import summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

__all__ = ["Run", "UserError", "compare", "load_run", "metrics", "plot", "run"]


def run(
    file: str | Path,
    *overrides: str | Mapping[str, Any],
    output: str | Path | None = None,
    overwrite: bool = False,
    **values: Any,
) -> Run:
    """Run the experiment in a YAML file, as `clmed run` does and with the same numbers, and load what it wrote.

    overrides: "strategy.replay.ratio=0.1", or {"strategy.replay.ratio": 0.1}; values: of keys at the top of the file,
    such as seed=1. output: the run's directory, by default runs/<name>. overwrite: delete what is in it first.

    A run that was interrupted goes on; one that is complete is loaded, so that a notebook may be executed again.
    Raises UserError for a mistake that you can mend, and StoppedError when a floor (`evaluation.on_floor`) ends it.
    """
    config = validation.load(file, _written(*overrides, values), given="overrides")
    directory = RunDirectory(Path(output or Path("runs") / config.name))
    if overwrite or not directory.is_complete(dump(config)):
        os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as for the command: clmed/cli.py says why
        from clmed import experiment

        experiment.run(config, directory.path, overwrite)
    return Run(directory.path)


def load_run(path: str | Path) -> Run:
    """The run in a directory, whatever its state. Raises UserError, which names runs nearby, if there is none."""
    return Run(path)


def plot(runs: Sequence[str | Path | Run] | str | Path | Run, name: str = "forgetting") -> Figure:
    """A figure of one run, or of several in comparison, as `clmed plot` draws it; a notebook shows it.

    Raises UserError, which names the figures that these runs allow, for another name.
    """
    able = plots.figures(_paths(runs))
    if name not in able:
        raise UserError(f"There is no figure '{name}' of these runs{did_you_mean(name, able)}")
    figure = able[name]()
    # Without pyplot nothing else tells a notebook how to show it.
    figure._repr_png_ = lambda: (plots.render(figure, "png", dpi=110), {"width": round(96 * figure.get_figwidth())})  # type: ignore[attr-defined]
    return figure


def compare(
    runs: Sequence[str | Path | Run] | str | Path | Run,
    *,
    by: Literal["run", "strategy"] = "run",
    margin: float = 0.01,
    allow_mismatch: bool = False,
) -> DataFrame:
    """Runs side by side, as `clmed compare` computes it: a row for each, or for each strategy over its seeds.

    A folder stands for the runs in it. margin: a loss of accuracy up to this counts as retained (0.01: one point). An
    estimate is three columns, `gain`, `gain_low` and `gain_high`, the ends of its 95 % interval; `attrs["notes"]` holds
    what is to be known about the comparison, in sentences. Raises UserError for runs that are no fair comparison,
    unless `allow_mismatch`.
    """
    found = comparison.compare(_paths(runs), by=by, margin=margin, allow_mismatch=allow_mismatch)
    return frames.compared(found)


class Run:
    """What a run has written so far; read when it is first asked for, so load it again to see more.

    scores, answers, training: data frames, whose columns docs/notebooks.md describes; rows: the lines of results.jsonl,
    which the functions of `clmed.metrics` take. Accuracies, and what is computed from them, are shares in [0, 1].
    """

    def __init__(self, path: str | Path) -> None:
        self.directory = RunDirectory.open(Path(path))
        self.path = self.directory.path

    @property
    def state(self) -> str:
        """running, killed, complete or stopped."""
        return self.directory.state()

    @property
    def reason(self) -> str:
        """Why it was stopped."""
        return str(self.directory.status()["reason"])

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting, defaults too."""
        return self.directory.config()

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.path.name))

    @cached_property
    def rows(self) -> list[Row]:
        return sound_scores(self.directory)

    @cached_property
    def scores(self) -> DataFrame:
        """A row for each measurement point, benchmark, category and metric."""
        return frames.scores(self.rows)

    @cached_property
    def training(self) -> DataFrame:
        """A row for each training step."""
        return frames.training(sound_steps(self.directory))

    @cached_property
    def answers(self) -> DataFrame:
        """A row for each measurement point, benchmark and question."""
        return frames.answers(self.directory, self.rows)

    def matrix(self) -> DataFrame:
        """R: a row for each measurement point, a column for each benchmark; NaN where it was not measured."""
        return frames.matrix(self.rows)

    def gain(self) -> float:
        """The mean change of the gain benchmarks since the base model; NaN without one. See `clmed.metrics.gain`."""
        return _number(metrics.gain(self.rows))

    def retention(self) -> float:
        """The mean change of the retention benchmarks since the base model; NaN without one."""
        return _number(metrics.retention(self.rows))

    def forgetting(self) -> Series[float]:
        """Of each benchmark, how far it lies below its best earlier score; positive is forgotten."""
        return frames.by_benchmark(metrics.forgetting(self.rows), "forgetting")

    def plot(self, name: str = "forgetting") -> Figure:
        """A figure of this run; see `clmed.plot`."""
        return plot(self, name)

    def __repr__(self) -> str:
        told = summary(self.rows)
        return f"<Run {self.path}, {self.state}{told and f': {told}'}>"


def _written(*overrides: str | Mapping[str, Any]) -> list[str]:
    """Overrides as the command takes them, `key=YAML`. JSON is YAML."""
    found: list[str] = []
    for given in overrides:
        if isinstance(given, str):
            found.append(given)
        else:
            found += [f"{key}={json.dumps(value, ensure_ascii=False, default=_plain)}" for key, value in given.items()]
    return found


def _paths(runs: Sequence[str | Path | Run] | str | Path | Run) -> list[Path]:
    several = [runs] if isinstance(runs, str | Path | Run) else runs
    return [each.path if isinstance(each, Run) else Path(each) for each in several]


def _plain(value: Any) -> Any:
    """A numpy number as a Python number, a path as text."""
    return value.item() if hasattr(value, "item") else str(value)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
