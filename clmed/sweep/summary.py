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
from clmed.results.runs import Run
from clmed.results.table import tokens_text
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import GridPoint, short_keys

COSTS = ("tokens", "all_tokens", "flops", "train_seconds")
FIELDS = ("gain", "retention", *COSTS)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The runs of one setting; of each number one value a run. gain and retention are shares.

    untold: which of them no benchmark of some run tells; NaN where one does, but some score is no number.
    """

    values: tuple[str, ...]
    runs: int
    numbers: dict[str, list[float]]
    untold: frozenset[str]

    def mean(self, name: str) -> float:
        return statistics.fmean(self.numbers[name])

    def shown(self, name: str) -> str:
        """Mean ± standard deviation over the seeds; gain and retention in points."""
        values = self.numbers[name]
        if name in self.untold:
            return "–"
        if not all(map(math.isfinite, values)):
            return "NaN"  # a note says why
        if name not in ("gain", "retention"):
            mean = self.mean(name)
            return f"{mean:.0f}" if name == "train_seconds" else f"{mean:.2e}" if name == "flops" else tokens_text(mean)
        spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * self.mean(name):+.1f}{spread}".replace("-", "−")


def numbers(rows: Rows) -> dict[str, float]:
    """Gain, retention (NaN where no benchmark tells them) and what it cost, at the last point of a run."""
    last = last_point(rows)
    end = next(row for row in rows if row["point"] == last)
    found = {name: math.nan if value is None else value for name, value in _changes(rows).items()}
    return found | {name: float(end[name]) for name in COSTS}


def _changes(rows: Rows) -> dict[str, float | None]:
    return {"gain": gain(rows), "retention": retention(rows)}


def settings(folder: SweepFolder, points: Sequence[GridPoint]) -> list[Setting]:
    """One for each combination of values but the seed's, of runs that are complete and measured something."""
    groups: dict[tuple[str, ...], list[Rows]] = {}
    for point in points:
        rows = folder.run(point).results()
        if rows:
            values = tuple(text for key, text in point.values.items() if key != "seed")
            groups.setdefault(values, []).append(rows)
    return [_setting(values, found) for values, found in groups.items()]


def _setting(values: tuple[str, ...], runs: Sequence[Rows]) -> Setting:
    found = [numbers(rows) for rows in runs]
    return Setting(
        values=values,
        runs=len(runs),
        numbers={name: [each[name] for each in found] for name in FIELDS},
        untold=frozenset(name for rows in runs for name, change in _changes(rows).items() if change is None),
    )


def notes(folder: SweepFolder, points: Sequence[GridPoint]) -> list[str]:
    """Which runs have scores that are no numbers, and why."""
    told = {point.name: Run(path=folder.run(point).path).unscored for point in points}
    return [f"{name} {why}." for name, why in told.items() if why]


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


def write(folder: SweepFolder, points: Sequence[GridPoint], found: Sequence[Setting], told: Sequence[str] = ()) -> None:
    """summary.md, with what is told below its table, and summary.csv with a line for each run."""
    heads = headings(points)
    lines = [f"| {' | '.join(heads)} |", "|" + "---:|" * len(heads)]
    lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in cells(found)]
    text = "\n".join([f"# {folder.path.name}", "", *lines, *(f"\n{each}" for each in told)]) + "\n"
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
