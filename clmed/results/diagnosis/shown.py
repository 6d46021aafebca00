"""Findings for the terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import indent

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from clmed.results.diagnosis.finding import Finding


def renderables(run: Path, findings: Sequence[Finding], blind: Sequence[str]) -> Iterator[RenderableType]:
    """What to print, in order: Text without breaking its lines, as a file must not be, all else as wide as is."""
    for finding in findings:
        yield Text(finding.title, style="bold yellow")
        yield Padding(Text("\n".join(finding.evidence)), (0, 0, 0, 2))
        yield Padding(Text(finding.meaning, style="dim"), (1, 0, 1, 2))
        yield Padding(Text("To try, in a file of its own:", style="bold"), (0, 0, 0, 2))
        yield Text(indent(as_file(run, finding), "    ") + "\n")
    if not findings:
        yield Text("Nothing was found of what can be seen." if blind else "Nothing was found.", style="bold green")
    if blind:
        yield Text("\n".join(["Not to be seen in this run:", *(f"  {line}" for line in blind)]), style="dim")


def as_file(run: Path, finding: Finding) -> str:
    """The change as an experiment file that `clmed run` takes."""
    return f"extends: {run / 'config.yaml'}\nname: {run.name}-{finding.signature}\n{finding.change}".rstrip()
