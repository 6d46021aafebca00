"""Watching a run: a progress bar (or, without a terminal, a line now and then) and one line a step in train.jsonl."""

import time
from collections.abc import Callable
from typing import Any

from avalanche.core import BaseSGDPlugin
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from clmed.planning import duration

HEARTBEAT = 15.0  # seconds between two lines where there is no terminal


class ProgressBar(BaseSGDPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Tokens, loss, learning rate, tokens/s and time left of the experience in progress."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.live = console.is_terminal
        self.progress: Progress | None = None

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """A new bar, as long as the experience has steps."""
        self.started = self.last_line = time.perf_counter()
        self.begin = trainer.all_tokens
        batches = trainer.experience.batches
        self.total = int(trainer.totals["tokens"][-1])
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),  # on a narrow terminal the bar gives way
            console=self.console,
            disable=not self.live,
        )
        self.task = self.progress.add_task(trainer.experience.name, total=len(batches), text="")
        self.progress.start()

    def after_training_iteration(self, trainer: Any, **kwargs: Any) -> None:
        """Move the bar."""
        assert self.progress is not None
        now = time.perf_counter()
        trained = trainer.all_tokens - self.begin
        text = (
            f"{short(trained)}/{short(self.total)} tokens  loss {trainer.log['loss']:.3f}  lr {trainer.log['lr']:.1e}  "
            f"{short(trained / (now - self.started))}/s"
        )
        self.progress.update(self.task, advance=1, text=text)
        if not self.live and now - self.last_line > HEARTBEAT:
            self.last_line = now
            left = duration((now - self.started) * (self.total - trained) / trained)
            self.console.print(f"{trainer.experience.name}: {text}  {left} left", soft_wrap=True, highlight=False)

    def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Leave the finished bar where it is."""
        self.close()

    def close(self) -> None:
        """Stop drawing; may be called twice."""
        if self.progress is not None:
            self.progress.stop()


class TrainingLog(BaseSGDPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """One record a step: experience, step, tokens so far, loss (whole and by source), gradient norm, learning rate."""

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.write = write

    def after_training_iteration(self, trainer: Any, **kwargs: Any) -> None:
        """Write the step just made (Avalanche's clock counts it only after this)."""
        record = {
            "experience": trainer.experience.name,
            "step": trainer.clock.train_exp_iterations + 1,
            "tokens": trainer.tokens,
            "all_tokens": trainer.all_tokens,
            "bytes": trainer.bytes,
            "flops": trainer.flops,
            "time": time.time(),
        }
        self.write(record | trainer.log)


def short(number: float) -> str:
    """1234567 -> '1.2M'."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
