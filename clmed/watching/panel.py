"""A look at a run, for the terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from clmed.planning import duration
from clmed.results.metrics import primary, primary_metric
from clmed.results.table import score_cell, tokens_text
from clmed.watching.follow import Seen

SILENCE = 600.0  # seconds after which a run on another machine may well be gone
STYLES = {"running": "green", "elsewhere": "green", "killed": "red", "stopped": "yellow", "complete": "bold green"}
MEASURED_LOSSES = 8  # sources shown


def panel(name: str, seen: Seen) -> RenderableType:
    """Everything that is known, some twenty lines."""
    return Group(*_parts(name, seen))


def _parts(name: str, seen: Seen) -> Iterator[RenderableType]:
    yield Rule(Text(name, style="bold"), align="left", style="dim")
    yield _state(seen)
    if seen.done is not None:
        yield _progress(seen)
    if seen.steps:
        yield _training(seen)
    if seen.results:
        yield _measurement(seen)
    for line in seen.damage:
        yield Text(line, style="bold red")
    for line in seen.floors:
        yield Text(line, style="red" if line.startswith("floor crossed") else "yellow")


def _state(seen: Seen) -> Text:
    told = {
        "running": "running" if seen.step else "measuring the model to start with",
        "elsewhere": f"running on {seen.host}, last sign of life {duration(seen.silent)} ago"
        + (": is it still there? Its process cannot be seen from here" if seen.silent > SILENCE else ""),
        "killed": "killed: its process is gone. The same `clmed run` goes on from the newest checkpoint",
        "stopped": f"stopped: {seen.reason or 'as asked'}",
        "complete": "complete",
    }[seen.state]
    quiet = seen.state == "elsewhere" and seen.silent > SILENCE
    return Text(told, style="yellow" if quiet else STYLES[seen.state])


def _progress(seen: Seen) -> Table:
    assert seen.done is not None and seen.index is not None
    done, total = seen.done
    phase = seen.plan[seen.index]
    grid = Table.grid(padding=(0, 2))
    place = f"{seen.index + 1} of {len(seen.plan)}" if len(seen.plan) > 1 else ""
    grid.add_row(
        Text(f"{phase['name']} {place}".rstrip(), style="bold"),
        ProgressBar(total=max(total, 1), completed=done, width=24),
        f"{tokens_text(done)} of {tokens_text(total)} domain tokens",
        f"step {seen.step['step']:,} of {phase['steps']:,}",
    )
    return grid


def _training(seen: Seen) -> Table:
    grid = Table.grid(padding=(0, 2))
    if (speed := seen.tokens_per_second) is not None:
        left = seen.seconds_left
        known = "" if left is None or seen.over else f"about {duration(left)} left, measurements included"
        grid.add_row("speed", f"{tokens_text(speed)} tokens/s  {known}")
    losses = list(seen.losses.items())
    shown = "  ".join(f"{name} {value:.3f}" for name, value in losses[:MEASURED_LOSSES])
    more = f"  and {len(losses) - MEASURED_LOSSES} more" if len(losses) > MEASURED_LOSSES else ""
    grid.add_row("loss", Text(f"{seen.mean('loss') or 0:.3f}   {shown}{more}"))
    grid.add_row("learning rate", f"{seen.step['lr']:.2e}")
    if (drift := seen.mean("kl_to_base")) is not None:
        grid.add_row("KL to base", f"{drift:.4f} nats a token")
    return grid


def _measurement(seen: Seen) -> Table:
    """Each benchmark at its last point: the base's score, that one, and the change."""
    last = seen.results[-1]
    table = Table(box=None, pad_edge=False, title_justify="left", header_style="dim", padding=(0, 2, 0, 0))
    table.title = Text(
        f"point {last['point']}: {last['experience']}, {tokens_text(last['tokens'])} domain tokens", style="bold"
    )
    for column in ("", "base", "now", "change", ""):
        table.add_column(column, justify="left" if not column else "right")
    roles = {row["benchmark"]: row["role"] for row in seen.results}
    for name, scores in primary(seen.results).items():
        metric = primary_metric(seen.results, name)
        point = max(scores)
        now, *change = score_cell(metric, scores, point).split("\n")
        base = score_cell(metric, scores, 0)
        table.add_row(name, base, now, change[0] if change else "", Text(roles[name], style="dim"))
    return table
