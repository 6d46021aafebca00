"""Watching a run: a progress bar (or, without a terminal, a line now and then) and one line a step in train.jsonl."""

import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from avalanche.core import BaseSGDPlugin
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from clmed.planning import duration

HEARTBEAT = 15.0  # seconds between two lines where there is no terminal
NOTEBOOK_BEAT = 0.5  # the same line, written anew


class ProgressBar(BaseSGDPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Tokens, loss, learning rate, tokens/s and time left of the experience in progress."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.live = console.is_terminal
        self.line = NotebookLine() if console.is_jupyter else None
        self.progress: Progress | None = None

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """A new bar, as long as the experience has steps."""
        self.started = self.last_line = time.perf_counter()
        batches = trainer.experience.batches
        tokens, first = trainer.totals["tokens"], trainer.first_step  # 0, unless a run goes on
        self.begin, self.total = trainer.all_tokens, int(tokens[-1])
        self.done = int(tokens[first])
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),  # on a narrow terminal the bar gives way
            console=self.console,
            disable=not self.live,
        )
        self.task = self.progress.add_task(trainer.experience.name, total=len(batches), completed=first, text="")
        self.progress.start()

    def after_training_iteration(self, trainer: Any, **kwargs: Any) -> None:
        """Move the bar."""
        assert self.progress is not None
        now = time.perf_counter()
        trained = trainer.all_tokens - self.begin
        text = (
            f"{short(self.done + trained)}/{short(self.total)} tokens  "
            f"loss {trainer.log['loss']:.3f}  lr {trainer.log['lr']:.1e}  {short(trained / (now - self.started))}/s"
        )
        self.progress.update(self.task, advance=1, text=text)
        if not self.live and now - self.last_line > (NOTEBOOK_BEAT if self.line else HEARTBEAT):
            self.last_line = now
            left = duration((now - self.started) * (self.total - self.done - trained) / trained)
            said = f"{trainer.experience.name}: {text}  {left} left"
            if self.line is not None:
                self.line.show(said)
            else:
                self.console.print(said, soft_wrap=True, highlight=False)

    def after_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        """Leave the finished bar where it is, before strategies begin bars of their own at the experience's end."""
        self.close()

    def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """The same where no step was made."""
        self.close()

    def close(self) -> None:
        """Stop drawing; may be called twice."""
        if self.progress is not None:
            self.progress.stop()


class NotebookLine:
    """A line in a notebook's output that changes in its place, without the widgets that rich's own bar would need."""

    def __init__(self) -> None:
        self.handle: Any = None

    def show(self, text: str) -> None:
        """Write the line, or write it anew."""
        from IPython.display import display

        if self.handle is None:
            self.handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self.handle.update({"text/plain": text}, raw=True)


class TrainingLog(BaseSGDPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """One record a step: experience, step, tokens so far, loss (whole and by source), gradient norm, learning rate.

    And how fast it was: tokens_per_second of all ranks (padding does not count; a step's Fisher, teacher and KL do, a
    measurement does not), `mfu`, the model's FLOPs as a share of `peak` FLOP/s a rank (none where no peak is known, as
    on CPUs), and peak_memory, the most bytes so far: of CUDA's tensors, or on CPUs of this process.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None], peak: float | None = None) -> None:
        super().__init__()
        self.write, self.peak = write, peak

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """From here the first step counts."""
        self.before = trainer.train_seconds, trainer.all_tokens, trainer.flops

    def after_training_iteration(self, trainer: Any, **kwargs: Any) -> None:
        """Write the step just made (Avalanche's clock counts it only after this)."""
        trainer.count_seconds()
        now = trainer.train_seconds, trainer.all_tokens, trainer.flops
        seconds, tokens, flops = (after - before for after, before in zip(now, self.before, strict=True))
        self.before = now
        trainer.log |= {"tokens_per_second": tokens / seconds, "peak_memory": peak_memory(trainer.device)}
        if self.peak is not None:
            trainer.log["mfu"] = flops / (seconds * trainer.world.ranks * self.peak)
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


def peak_memory(device: torch.device) -> int:
    """The most bytes so far: allocated on a CUDA device, else resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def short(number: float) -> str:
    """1234567 -> '1.2M'."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return f"{number:.0f}"
