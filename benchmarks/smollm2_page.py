"""The tables and pictures of docs/results/smollm2.md, from the folder that holds the runs of experiments/smollm2/.

python benchmarks/smollm2_page.py runs

What each run measured goes to docs/results/smollm2.csv: runs are too large to be kept in the repository.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from measure import markdown, write_part

from clmed.results.comparison import Comparison, compare, formats
from clmed.results.metrics import as_shown, primary_metric
from clmed.results.plots import figures
from clmed.results.plots.style import COLOURS, GREY, MARKERS, SMALL, new_figure, render
from clmed.results.report.losses import category_table
from clmed.results.rundir import RunDirectory, is_run
from clmed.results.runs import open_runs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "smollm2.md"
STUDY = "smollm2"
METHODS = {
    "english": ["naive", "replay", "interleave", "ewc", "lora", "average"],
    "chinese": ["naive", "replay", "ewc"],
}
ACROSS = 3  # panels in a row
GENERAL = {"english": "mmlu-other", "chinese": "mmlu"}  # whose categories are shown
RECORD = ["run", "seed", "point", "experience", "tokens", "benchmark", "role", "metric", "score", "questions"]


def main(folder: Path) -> None:
    """Write all parts that the runs in `folder` allow."""
    with PAGE.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(RECORD)
        for domain, methods in METHODS.items():
            runs = complete(folder, domain, methods)
            first = [run for run in runs if seed(run) == 0]
            writer.writerows(row for run in runs for row in record(run))
            write_part(PAGE, f"{domain} scores", scores(first))
            write_part(PAGE, domain, tables(first, by="run"))
            write_part(PAGE, f"{domain} categories", categories([run.path for run in first], GENERAL[domain]))
            again = {name(run) for run in runs if seed(run) == 1}
            twice = [run for run in runs if name(run) in again]
            write_part(PAGE, f"{domain} seeds", tables(twice, by="strategy"))
            paths = [run.path for run in first]
            curves = figures(paths)["forgetting"]()
            for kind, picture in (("forgetting", curves), ("changes", changes(compare(paths)))):
                PAGE.with_name(f"{STUDY}-{domain}-{kind}.png").write_bytes(render(picture, "png"))


def complete(folder: Path, domain: str, methods: Sequence[str]) -> list[RunDirectory]:
    """The complete runs of a domain, in the order of `methods`, each with its seeds together."""
    runs = [RunDirectory.open(path) for path in sorted(folder.iterdir()) if is_run(path)]
    names = [f"{STUDY}-{domain}-{method}" for method in methods]
    here = [run for run in runs if name(run) in names and run.state() == "complete"]
    return sorted(here, key=lambda run: (names.index(name(run)), seed(run)))


def name(run: RunDirectory) -> str:
    return str(run.config()["name"])


def method(label: str) -> str:
    """`naive` of `smollm2-english-naive`."""
    return label.rpartition("-")[2]


def seed(run: RunDirectory) -> int:
    return int(run.config()["seed"])


def whole(run: RunDirectory) -> Iterator[dict[str, Any]]:
    """The rows of its results that are of whole benchmarks, in the metric that figures use."""
    rows = run.results()
    for row in rows:
        if row["category"] == "all" and row["metric"] == primary_metric(rows, row["benchmark"]):
            yield row


def record(run: RunDirectory) -> Iterator[list[Any]]:
    for row in whole(run):
        yield [name(run), seed(run), *(row[column] for column in RECORD[2:])]


def scores(runs: Sequence[RunDirectory]) -> str:
    """A line for each benchmark: the base, the baseline of one answer to all questions, and the end of each run."""
    ends = [{row["benchmark"]: row for row in whole(run)} for run in runs]
    base = [row for row in whole(runs[0]) if row["point"] == 0]
    lines = []
    for row in base:
        scale, digits = as_shown(row["metric"])
        values = [row["score"], row.get("constant"), *(end[row["benchmark"]]["score"] for end in ends)]
        shown = ["–" if value is None else f"{scale * value:.{digits}f}" for value in values]
        lines.append([f"{row['benchmark']} ({row['role']})", *shown])
    return markdown(["", "base", "one letter", *(method(name(run)) for run in runs)], lines)


def tables(runs: Sequence[RunDirectory], by: Literal["run", "strategy"]) -> str:
    """What `clmed compare --format markdown` says of them, without the signs, which the page explains once."""
    if not runs:
        return "No such run yet."
    return formats.markdown(compare([run.path for run in runs], by=by)).partition("\n- changes since")[0].strip()


def categories(paths: Sequence[Path], benchmark: str) -> str:
    """A line for each category of a benchmark: the change since the base with its interval, a column for each run."""
    runs = {method(run.name): [run] for run in open_runs(paths)}
    found = category_table(compare(paths), runs)
    assert found is not None
    kind = f"category of {benchmark}"
    rows = sorted((row for row in found.rows if row[0].note == kind), key=lambda row: row[0].text)
    cells = [[row[0].text, row[1].text, *(f"{cell.text}<br>{cell.note}" for cell in row[2:])] for row in rows]
    return markdown(["", "questions", *runs], cells)


def changes(comparison: Comparison) -> Figure:
    """A panel for each primary benchmark: the change since the base and its 95 % interval, a line for each run."""
    rows = comparison.rows
    methods = [method(row.label) for row in rows]
    down = -(-len(comparison.primary) // ACROSS)
    with new_figure([*methods, *comparison.primary]) as figure:
        figure.set_size_inches(ACROSS * 2.3, down * (0.55 + 0.16 * len(rows)))
        figure.set_layout_engine("constrained")
        panels = figure.subplots(down, ACROSS, sharey=True, squeeze=False).flat
        for axes, benchmark in zip(panels, comparison.primary, strict=False):
            cells = [row.cells[benchmark] for row in rows]
            scale, _ = as_shown(cells[0].metric)
            axes.axvline(0, color=GREY, linewidth=0.7, linestyle=":")
            for place, cell in enumerate(cells):
                low, value, high = (scale * end for end in (cell.change.low, cell.change.value, cell.change.high))
                axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=0.9)
                axes.plot(value, place, MARKERS[0], color=COLOURS[0], markersize=3.5)
            axes.set_yticks(range(len(rows)), methods)
            axes.set_title(f"{benchmark} ({cells[0].role})", loc="left", fontsize=SMALL, fontweight="bold")
            axes.set_xlabel("points" if scale > 1 else "nats a token (less is better)")
            axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(len(rows) - 0.5, -0.5)  # shared
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]))
