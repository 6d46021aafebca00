"""TensorBoard and Weights & Biases, through Avalanche's own loggers (it depends on both packages).

They show what stands in the run's directory, under names that do not change: every score of results.jsonl is
<benchmark>/<category>/<metric>, every number of a step in train.jsonl is train/<key>, and where all benchmarks have
been measured there are summary/gain, summary/retention and forgetting/<benchmark>. The axis is domain tokens.

A run that goes on is shown from its beginning, out of its directory. So nothing is there twice that was trained again
after a kill, nothing is missing that a tracker had not sent by then, and scores that were taken from another run are
there too.
"""

import os
import shutil
import textwrap
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from avalanche.logging import BaseLogger, TensorboardLogger, WandBLogger
from torch.utils.tensorboard import SummaryWriter

from clmed.config import ExperimentConfig, dump
from clmed.errors import UserError
from clmed.results import metrics
from clmed.results.metrics import Rows
from clmed.results.rundir import RunDirectory

COUNTERS = ("all_tokens", "bytes", "flops")  # of the trainer, which train.jsonl has beside what a step says


class Tracking(BaseLogger):
    """Shows each step and each measurement in all trackers. It comes after the logger that writes results.jsonl."""

    def __init__(
        self, shown: Sequence["_TensorBoard | _WandB"], directory: RunDirectory, names: AbstractSet[str]
    ) -> None:
        """names: of all benchmarks."""
        super().__init__()
        self.shown, self.directory, self.names = shown, directory, names
        self._show(history(directory.training(), directory.results(), names))

    def after_training_iteration(self, strategy: Any, *_: Any, **__: Any) -> None:
        """The step just made."""
        self._show([(strategy.tokens, step_values(strategy.log | {key: getattr(strategy, key) for key in COUNTERS}))])

    def after_eval_exp(self, strategy: Any, *_: Any, **__: Any) -> None:
        """One benchmark has been measured."""
        rows = self.directory.results()
        own = [row for row in rows if (row["point"], row["benchmark"]) == (strategy.point, strategy.experience.name)]
        self._show([(strategy.tokens, scores(own) | summaries(rows, strategy.point, self.names))])

    def _show(self, moments: Iterable[tuple[int, dict[str, float]]]) -> None:
        for tokens, values in moments:
            for each in self.shown:
                each.show(values, tokens)


def history(training: Rows, results: Rows, names: AbstractSet[str]) -> Iterator[tuple[int, dict[str, float]]]:
    """What a run has to show so far: domain tokens (rising) and the values there."""
    points: dict[int, list[Mapping[str, Any]]] = {}
    for row in results:
        points.setdefault(row["point"], []).append(row)
    steps = iter(training)
    step = next(steps, None)
    for point, rows in points.items():
        while step is not None and step["tokens"] <= rows[0]["tokens"]:
            yield step["tokens"], step_values(step)
            step = next(steps, None)
        yield rows[0]["tokens"], scores(rows) | summaries(results, point, names)
    while step is not None:
        yield step["tokens"], step_values(step)
        step = next(steps, None)


def step_values(row: Mapping[str, Any]) -> dict[str, float]:
    """Of a step, but for its place and time."""
    return {f"train/{key}": float(row[key]) for key in row if key not in ("experience", "step", "tokens", "time")}


def scores(rows: Rows) -> dict[str, float]:
    """Of rows of results.jsonl."""
    return {f"{row['benchmark']}/{row['category']}/{row['metric']}": row["score"] for row in rows}


def summaries(results: Rows, point: int, names: AbstractSet[str]) -> dict[str, float]:
    """Gain, retention and forgetting at a point, or nothing while there are benchmarks still to be measured."""
    until = [row for row in results if row["point"] <= point]
    if not names <= {row["benchmark"] for row in until if row["point"] == point}:
        return {}
    found = {"summary/gain": metrics.gain(until), "summary/retention": metrics.retention(until)}
    forgotten = {f"forgetting/{name}": value for name, value in metrics.forgetting(until).items()}
    return {name: value for name, value in found.items() if value is not None} | forgotten


@contextmanager
def trackers(config: ExperimentConfig, directory: RunDirectory, main: bool) -> Iterator[list[BaseLogger]]:
    """The logger of the configured trackers, on the main rank alone; they are closed in the end.

    The directory is as the run begins in it, or goes on. Raises UserError where a tracker does not start.
    """
    watching = config.watching
    with ExitStack() as closing:
        shown: list[_TensorBoard | _WandB] = []
        if main and watching.tensorboard:
            shown.append(_tensorboard(config, directory, closing))
        if main and watching.wandb is not None:
            shown.append(_wandb(watching.wandb, config, directory, closing))
        names = {benchmark.label for benchmark in config.evaluation.gain + config.evaluation.retention}
        yield [Tracking(shown, directory, names)] if shown else []


class _TensorBoard(TensorboardLogger):
    def show(self, values: Mapping[str, float], tokens: int) -> None:
        for name, value in values.items():
            self.log_single_metric(name, value, tokens)

    def _make_writer(self, folder: Path, suffix: str) -> SummaryWriter:
        # A TensorBoard that is open forgets what it has read of the files before.
        return SummaryWriter(folder, filename_suffix=suffix, purge_step=0)


class _WandB(WandBLogger):
    def show(self, values: Mapping[str, float], tokens: int) -> None:
        # Online the server keeps what it has: a run that goes on begins behind that.
        if tokens >= self.first:
            self.wandb.log(dict(values), step=tokens)

    def before_run(self) -> None:
        super().before_run()
        self.first = self.wandb.run.step


def _tensorboard(config: ExperimentConfig, directory: RunDirectory, closing: ExitStack) -> _TensorBoard:
    for old in directory.tensorboard.glob("events.out.tfevents.*"):
        old.unlink()
    logger = _TensorBoard(directory.tensorboard)
    closing.callback(logger.writer.close)
    logger.writer.add_text("config", textwrap.indent(dump(config), "    "), 0)
    return logger


def _wandb(project: str, config: ExperimentConfig, directory: RunDirectory, closing: ExitStack) -> _WandB:
    import wandb  # half a second, for those who ask for it

    os.environ.setdefault("WANDB_SILENT", "true")  # the run has a voice of its own
    # `wandb sync` lets the last of several folders with one id replace the others.
    for old in directory.wandb.glob("offline-run-*"):
        shutil.rmtree(old)
    try:
        logger = _WandB(
            project_name=project,
            run_name=config.name,
            save_code=False,
            config=config.model_dump(mode="json"),
            dir=directory.path,
            params={
                "id": _run_id(directory),
                "resume": "allow",  # a run that goes on continues its curves
                "settings": wandb.Settings(console="off"),  # stdout is left alone
            },
        )
    except (wandb.errors.Error, OSError) as error:
        raise UserError(
            f"watching.wandb: Weights & Biases does not start ({str(error).splitlines()[0]}). `wandb login` gives it a "
            "key; with WANDB_MODE=offline in the environment it needs none, and `wandb sync` sends the curves later."
        ) from error
    closing.push(lambda kind, *_: wandb.finish(exit_code=0 if kind is None else 1))
    return logger


def _run_id(directory: RunDirectory) -> str:
    file = directory.wandb / "run-id"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex[:16])
    return file.read_text()
