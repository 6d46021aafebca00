"""What a run says: on the terminal and in its log, from the first rank alone."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from clmed.data.scanning import Batch
from clmed.results.rundir import disk_errors

LITERAL: Any = {"markup": False, "emoji": False}  # the [brackets] and :colons: of names are no markup


def scanning(console: Console, what: str, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, with a line on a terminal that says how far the search is: a stream has no known end."""
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.fields[found]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, found="")
        size = documents = 0
        for batch in batches:
            yield batch
            size, documents = size + batch.bytes, documents + len(batch.numbers)
            bar.update(task, found=f"{documents:,} documents, {size / 1e6:,.0f} MB")


class Voice(logging.Handler):
    """What the run says: on the first rank to the terminal and, as soon as there is one, to log.txt.

    It takes the warnings of the package as well.
    """

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.console = Console(quiet=quiet, **LITERAL)
        self.log: Path | None = None
        self.unwritten: list[RenderableType] = []
        logging.getLogger("clmed").addHandler(self)

    def close(self) -> None:
        """Take no more warnings."""
        logging.getLogger("clmed").removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Say a warning."""
        self.say(f"{record.levelname.lower()}: {record.getMessage()}")

    def write_to(self, log: Path) -> None:
        """There is a log now: it gets what has been said so far, and all that follows."""
        self.log = log
        while self.unwritten:
            self.note(self.unwritten.pop(0))

    def say(self, what: RenderableType) -> None:
        """Print to both. Text is not broken into lines, so that paths stay whole, and a [bracket] is no markup."""
        what = Text(what) if isinstance(what, str) else what
        self.console.print(what, soft_wrap=isinstance(what, Text))
        self.note(what)

    def note(self, what: RenderableType) -> None:
        """To the log alone."""
        what = Text(what) if isinstance(what, str) else what
        if self.log is None:
            self.unwritten.append(what)
            return
        with disk_errors(self.log.parent), self.log.open("a", encoding="utf-8") as file:
            # In a notebook rich would show it there instead.
            Console(file=file, width=120, force_jupyter=False, **LITERAL).print(what, soft_wrap=isinstance(what, Text))

    @contextmanager
    def follow(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar for something long, gone when it is over; yields the function that moves it on."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.advance(task, done)

    def scanning(self, what: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of a text that is searched, and how far it is."""
        return scanning(self.console, what, batches)

    def status(self, what: str) -> AbstractContextManager[object]:
        """A spinner while something short goes on."""
        return self.console.status(what) if self.console.is_terminal else nullcontext()
