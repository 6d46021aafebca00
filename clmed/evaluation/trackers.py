"""TensorBoard and Weights & Biases, through Avalanche's own loggers (it depends on both packages).

Names are stable: a benchmark's scores are <benchmark>/<category>/<metric>, everything of train.jsonl that a step has is
train/<key>. The horizontal axis is domain tokens, as in the figures of clmed.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.logging import BaseLogger, TensorboardLogger, WandBLogger

from clmed.config import ExperimentConfig
from clmed.errors import UserError
from clmed.results.rundir import RunDirectory


class TrainingValues(PluginMetric[dict]):
    """What a step has to say, as Avalanche metric values; only for trackers, which the evaluator passes them to."""

    def result(self) -> dict:
        """Nothing is kept."""
        return {}

    def reset(self) -> None:
        """Nothing to forget."""

    def after_training_iteration(self, strategy: Any) -> list[MetricValue]:
        """The trainer's log of the step just made."""
        return [MetricValue(self, f"train/{key}", float(value), strategy.tokens) for key, value in strategy.log.items()]


@contextmanager
def trackers(config: ExperimentConfig, directory: RunDirectory, main: bool) -> Iterator[list[BaseLogger]]:
    """The configured loggers, on the main rank alone, closed in the end.

    Raises UserError where they do not start.
    """
    watching = config.watching
    with ExitStack() as closing:
        loggers: list[BaseLogger] = []
        if main and watching.tensorboard:
            loggers.append(_tensorboard(directory, closing))
        if main and watching.wandb is not None:
            loggers.append(_wandb(watching.wandb, config, directory, closing))
        yield loggers


class _WandB(WandBLogger):
    """Avalanche 0.6 asks wandb.viz for the kind of a value, which wandb has no more; all of ours are numbers."""

    def log_single_metric(self, name: str, value: float, x_plot: int) -> None:
        self.step = x_plot
        self.wandb.log({name: value}, step=x_plot)


def _tensorboard(directory: RunDirectory, closing: ExitStack) -> BaseLogger:
    logger = TensorboardLogger(directory.tensorboard)
    closing.callback(logger.writer.close)
    return logger


def _wandb(project: str, config: ExperimentConfig, directory: RunDirectory, closing: ExitStack) -> BaseLogger:
    import wandb  # half a second, for those who ask for it

    os.environ.setdefault("WANDB_SILENT", "true")  # the run has a voice of its own
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
    closing.callback(wandb.finish)
    return logger


def _run_id(directory: RunDirectory) -> str:
    file = directory.wandb / "run-id"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex[:16])
    return file.read_text()
