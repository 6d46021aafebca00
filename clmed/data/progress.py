"""Progress bars; for the making of rows: the share of the source that is read, tokens, and tokens a second."""

import os
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import TypeVar

from clmed.data.packing import Row
from clmed.data.sources import Reading

Item = TypeVar("Item")

_PATIENCE = 2.0  # seconds of work before the bar appears


def is_first_process() -> bool:
    """Whether this process is the one that talks, where torchrun or accelerate started several."""
    return os.environ.get("RANK", "0") == "0"


def followed(items: Sequence[Item], title: str) -> Iterable[Item]:
    """The items, with a bar on the terminal (first process only)."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not (is_first_process() and console.is_terminal)
    return track(items, title, console=console, transient=True, disable=hidden)


def following(rows: Iterator[Row], title: str, reading: Reading) -> Iterator[Row]:
    """The rows, with a bar on the terminal (first process only) when making them takes long."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (is_first_process() and console.is_terminal):
        yield from rows
        return
    start, tokens = monotonic(), 0
    told = TextColumn(
        "{task.description}: {task.fields[tokens]:,} tokens, {task.fields[speed]:,.0f} tokens/s", markup=False
    )
    columns = (SpinnerColumn(), told, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"tokenising {title}", total=None, visible=False, tokens=0, speed=0.0)
        for row in rows:
            tokens += row.tokens
            seconds = monotonic() - start
            progress.update(
                task,
                total=reading.total,
                completed=reading.done,
                tokens=tokens,
                speed=tokens / max(seconds, 1e-9),
                visible=seconds > _PATIENCE,
            )
            yield row
