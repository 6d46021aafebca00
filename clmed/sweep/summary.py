"""What a sweep found: a row for each setting of the grid, its seeds taken together."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from clmed.results.files import write_whole
from clmed.results.fronts import pareto
from clmed.results.metrics import Rows, gain, last_point, retention
from clmed.results.table import tokens_text
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import GridPoint, short_keys

COSTS = ("tokens", "all_tokens", "flops", "train_seconds")
FIELDS = ("gain", "retention", *COSTS)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The runs of one setting; of each number one value a run. gain and retention are shares, NaN where none is."""

    values: tuple[str, ...]
    runs: int
    numbers: dict[str, list[float]]

    def mean(self, name: str) -> float:
        return statistics.fmean(self.numbers[name])

    def shown(self, name: str) -> str:
        """Mean ± standard deviation over the seeds; gain and retention in points."""
        values = self.numbers[name]
        if any(math.isnan(value) for value in values):
            return "–"
        if name not in ("gain", "retention"):
            mean = self.mean(name)
            return f"{mean:.0f}" if name == "train_seconds" else f"{mean:.2e}" if name == "flops" else tokens_text(mean)
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * self.mean(name):+.1f}{spread}".replace("-", "−")


def numbers(rows: Rows) -> dict[str, float]:
    """Gain, retention and what it cost, at the last point of a run."""
    last = last_point(rows)
    end = next(row for row in rows if row["point"] == last)
    changes = {"gain": gain(rows), "retention": retention(rows)}
    found = {name: math.nan if value is None else value for name, value in changes.items()}
    return found | {name: float(end[name]) for name in COSTS}


def settings(folder: SweepFolder, points: Sequence[GridPoint]) -> list[Setting]:
    """One for each combination of values but the seed's, of runs that are complete and measured something."""
    groups: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for point in points:
        rows = folder.run(point).results()
        if rows:
            values = tuple(text for key, text in point.values.items() if key != "seed")
            groups.setdefault(values, []).append(numbers(rows))
    return [
        Setting(values=values, runs=len(found), numbers={name: [each[name] for each in found] for name in FIELDS})
        for values, found in groups.items()
    ]


def headings(points: Sequence[GridPoint]) -> list[str]:
    """The keys that change, but the seed, and the columns of numbers."""
    keys = [key for key in points[0].values if key != "seed"]
    columns = ["gain", "retention", "front", "domain tokens", "all tokens", "FLOPs", "training s"]
    return [*short_keys(keys), "runs", *columns]


def cells(found: Sequence[Setting]) -> list[list[str]]:
    """A row for each setting; on the front are those that no other beats in both gain and retention."""
    front = pareto([setting.mean("gain") for setting in found], [setting.mean("retention") for setting in found])
    return [
        [
            *setting.values,
            str(setting.runs),
            *(setting.shown(name) for name in FIELDS[:2]),
            "●" if on else "",
            *(setting.shown(name) for name in COSTS),
        ]
        for setting, on in zip(found, front, strict=True)
    ]


def table(points: Sequence[GridPoint], found: Sequence[Setting]) -> Table:
    """For the terminal."""
    made = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for name in headings(points):
        made.add_column(Text(name), justify="right", overflow="fold")
    for row in cells(found):
        made.add_row(*map(Text, row))
    return made


def write(folder: SweepFolder, points: Sequence[GridPoint], found: Sequence[Setting], note: str = "") -> None:
    """summary.md, and summary.csv with a line for each run."""
    heads = headings(points)
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in cells(found)]
    text = "\n".join([f"# {folder.path.name}", "", *lines, "", note]).rstrip() + "\n"
    write_whole(folder.path / "summary.md", text.encode())
    write_whole(folder.path / "summary.csv", _by_run(folder, points).encode())


def _by_run(folder: SweepFolder, points: Sequence[GridPoint]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", *points[0].values, *FIELDS])
    for point in points:
        if rows := folder.run(point).results():
            found: dict[str, Any] = numbers(rows)
            writer.writerow([point.name, *point.values.values(), *(found[name] for name in FIELDS)])
    return stream.getvalue()


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
