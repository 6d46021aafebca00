"""`clmed sweep`, from its arguments to its summary."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clmed.errors import StoppedError
from clmed.results.files import write_whole
from clmed.sweep import summary
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import GridPoint
from clmed.sweep.local import Jobs
from clmed.sweep.running import Progress as State
from clmed.sweep.running import run_all

if TYPE_CHECKING:
    from clmed.sweep.surface import Varied

NOTE = (
    "Gain and retention: mean change of accuracy against the base, in points, over the gain and the retention "
    "benchmarks; ± standard deviation over runs. ● no other setting is better in one and as good in the other. FLOPs: "
    "all, with what strategies add."
)


def sweep(folder: SweepFolder, points: Sequence[GridPoint], jobs: Jobs, varied: "Varied | None" = None) -> bool:
    """Run the grid and tell what came out; whether all runs are complete. varied: what surfaces are fitted over."""
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 120)
    console.print(f"{len(points)} runs in {folder.path}", soft_wrap=True)
    with sigterm_stops(), following(console) as show:
        state = run_all(folder, points, jobs, lambda text: console.print(text, soft_wrap=True), show)
    done = [point for point in points if point in state.done]
    found = summary.settings(folder, done)
    if found:
        console.print(summary.table(points, found))
        notes = summary.notes(folder, done)
        for note in notes:
            console.print(note, soft_wrap=True)
        summary.write(folder, done, found, [*notes, NOTE])
    console.print(f"summary  {folder.path / 'summary.md'}", soft_wrap=True)
    if varied is not None and not state.failed:
        _surfaces(console, folder, points, varied)
    if state.failed:
        console.print(f"\n{len(state.failed)} of {len(points)} runs failed; the same command tries them again:")
        for name, why in state.failed.items():
            console.print(f"  {name}: {why}", soft_wrap=True)
    return not state.failed


def _surfaces(console: Console, folder: SweepFolder, points: Sequence[GridPoint], varied: "Varied") -> None:
    from clmed.results.plots import surface as figure
    from clmed.results.plots.style import render
    from clmed.sweep import surface

    surfaces = varied.surfaces(folder, points)
    text = surface.report(varied, surfaces)
    surface.write(folder, text)
    console.print(f"\n{text}", soft_wrap=True)
    console.print(f"surface  {folder.path / 'surface.md'}", soft_wrap=True)
    if len(varied.factors) == 2:
        best = surface.balance(surfaces).setting
        drawn = figure.draw(surfaces, varied.settings, best)
        for form in ("png", "svg"):
            file = folder.path / f"surface.{form}"
            write_whole(file, render(drawn, form))
            console.print(f"figure   {file}", soft_wrap=True)


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """SIGTERM, a cluster's or a script's, stops as Ctrl-C does, with the exit code that says: run me again."""

    def stop(*_: object) -> None:
        raise StoppedError("asked to stop")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def following(console: Console) -> Iterator[Callable[[State], None]]:
    """A bar on a terminal, with the runs in progress; without one only what is said when a run ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(state: State) -> None:
            names = ", ".join(state.running)
            bar.update(
                task,
                total=state.total,
                completed=state.ended,
                description=names if len(names) <= 60 else f"{names[:57]}...",
            )

        yield show
