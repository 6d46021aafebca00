"""Commands that read finished or unfinished runs: `clmed compare`, `diagnose`, `report`, `watch`."""

import gc
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import click

from clmed.errors import UserError

FILE = click.Path(path_type=Path)
T = TypeVar("T")


@click.command()
@click.argument("runs", nargs=-1, type=FILE, metavar="RUN...")
@click.option(
    "--by",
    type=click.Choice(["run", "strategy"]),
    default="run",
    show_default=True,
    help="A row for each run, or for each strategy: runs that differ in their seeds only.",
)
@click.option(
    "--margin",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Points of accuracy that may be lost and still be called retained.",
)
@click.option(
    "--allow-mismatch", is_flag=True, help="Mark runs with other shots, templates or budgets instead of refusing them."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "latex", "csv", "json"]),
    default="table",
    show_default=True,
)
@click.option("-o", "--output", type=FILE, help="A file, instead of the terminal.")
def compare(
    runs: tuple[Path, ...],
    by: Literal["run", "strategy"],
    margin: float,
    allow_mismatch: bool,
    form: str,
    output: Path | None,
) -> None:
    """Compare runs in one table: gain, retention, forgetting, and what they cost, with 95 % intervals.

    RUN is the folder of a run, or a folder that holds runs. All are measured by the first naive run or, without one, by
    the first. ▲ and ▼ mark what differs from it, tested on the same questions and corrected for the number of
    comparisons; "retained" is said only where a loss above the margin is excluded. Of a run it speaks of that run
    only, of a strategy where there are seeds enough (3; 5 for built-in models). docs/forgetting.md has the definitions.

    \b
    Examples:
      clmed compare runs/naive runs/replay runs/ewc
      clmed compare runs --by strategy
      clmed compare runs --by strategy --format markdown -o comparison.md
      clmed compare runs/naive runs/frozen --allow-mismatch --margin 2
    """
    from clmed.results.comparison import compare as put_side_by_side
    from clmed.results.comparison import formats
    from clmed.results.files import write_whole

    _keep_everything()
    if not math.isfinite(margin):
        raise click.BadParameter(f"{margin} is no number of points.", param_hint="--margin")
    found = put_side_by_side(runs, by=by, margin=margin / 100, allow_mismatch=allow_mismatch, follow=_bar)
    if output is not None:
        write_whole(output, formats.FORMATS[form](found).encode())
        click.echo(output)
    elif form != "table":
        click.echo(formats.FORMATS[form](found), nl=False)
    else:
        from rich.console import Console

        Console(highlight=False).print(*formats.terminal(found), sep="\n")


@click.command()
@click.argument("runs", nargs=-1, type=FILE, metavar="RUN...")
@click.option("-o", "--output", type=FILE, help="The HTML file; RUN/report.html for one run, else report.html.")
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write all that is known of one run, or of several in comparison, as one web page.

    RUN is the folder of a run, or a folder that holds runs. The page needs nothing else: mail it, or open it from the
    disk. It says what was gained and lost, with intervals, which categories and questions were forgotten, what the runs
    were trained on, what they cost, and in which settings they differ. Columns sort, tables filter. Runs that are
    still going, were killed or are damaged are shown as such. docs/report.md describes the sections.

    \b
    Examples:
      clmed report runs/replay
      clmed report runs/naive runs/replay runs/ewc -o report.html
      clmed report runs -o report.html
    """
    _keep_everything()
    from clmed.results.report.render import write_report

    click.echo(write_report(runs, output))


def _keep_everything() -> None:
    """Of what is read of runs nothing is garbage, and looking for it takes its time: of thousands half of it."""
    gc.disable()


def _bar(items: Sequence[T], what: str) -> Iterable[T]:
    """A bar on a terminal, while it lasts; to a file nothing."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal or len(items) < 20)


@click.command()
@click.argument("runs", nargs=-1, type=FILE, metavar="RUN...")
def diagnose(runs: tuple[Path, ...]) -> None:
    """Look for what went wrong in runs, and say which change of their configuration to try.

    RUN is the folder of a run, or a folder that holds runs. Four signatures, each with its numbers and their 95 %
    intervals: the base does not know the domain's language; a source stays far from anything it knows; the loss on the
    domain falls but the exam hardly rises; general ability is lost (in which categories, and where in the stream). What
    chance explains is not told. docs/diagnosing.md has the rules.

    \b
    Examples:
      clmed diagnose runs/naive
      clmed diagnose runs                        one after the other
      clmed run try.yaml                         the change that it proposes, saved to a file
    """
    from rich.console import Console
    from rich.text import Text

    from clmed.results.diagnosis import Record, blind_spots, shown
    from clmed.results.diagnosis import diagnose as findings_of
    from clmed.results.runs import open_runs

    console, found = Console(highlight=False), open_runs(runs)
    for run in found:
        if len(found) > 1:
            console.print(Text(f"\n{run.path}", style="bold underline"), soft_wrap=True)
        try:
            record = Record(run=run)
            parts = list(shown.renderables(run.path, findings_of(record), blind_spots(record)))
        except UserError as error:
            if len(found) == 1:
                raise
            parts = [Text(f"It cannot be diagnosed: {error}", style="bold red")]
        parts += [Text(f"The run {run.told}.", style="dim")] if run.told else []
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))


@click.command()
@click.argument("run", type=FILE)
@click.option("--once", is_flag=True, help="Print what is known now, and end.")
def watch(run: Path, once: bool) -> None:
    """Follow RUN while it goes on: place in the stream, speed, time left, losses, last scores, floors that are crossed.

    Only the run's directory is read, so it may lie on a disk that another machine writes. A run that has not made its
    directory yet is waited for. Ctrl-C ends the watching, not the run.

    The exit code says how the run ended: 0 complete, 75 stopped (the same command goes on from there), 1 killed. With
    --once it is 0 for a run that is still going.

    \b
    Examples:
      clmed watch runs/replay
      clmed watch /shared/runs/13b --once
      clmed watch runs/replay && clmed report runs/replay
    """
    from rich.console import Console

    from clmed.watching import once as look_once
    from clmed.watching import until_over

    raise SystemExit(look_once(run, Console()) if once else until_over(run, Console()))
