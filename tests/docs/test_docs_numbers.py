"""The numbers of the README and of the first run are those that `make miniworld-table` has kept."""

import csv
import re
from statistics import mean

import pytest

from tests.docs.pages import ROOT

METHODS = {
    "naive": "naive",
    "LoRA": "lora",
    "L2": "l2",
    "EWC": "ewc",
    "self-synthesis, 25 %": "self_synthesis",
    "replay, 25 %": "replay",
    "dark experience replay, 25 %": "der",
    "joint": "joint",
}
EXAM, GENERAL = "synthetic-cmexam", ("synthetic-mmlu", "synthetic-cmmlu")


def runs(file: str) -> list[dict[str, str]]:
    """Of an experiment file as it stands, in the fixed world, by seed."""
    with (ROOT / "docs" / "results" / "miniworld.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["file"] == file and not row["alpha"]]
    return [row for row in rows if row["world"] == "miniworld" and float(row["scale"]) == 1]


def average(file: str, *columns: str) -> float:
    return mean(float(run[column]) for run in runs(file) for column in columns)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_of_the_readme(method: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = re.findall(rf"^\| {re.escape(method)} \| (.*) \|$", readme, re.MULTILINE)[0].split(" | ")
    file = METHODS[method]
    halves = [average(file, *(f"end {exam} {half}" for exam in GENERAL)) for half in ("covered", "uncovered")]
    scores = [average(file, f"end {EXAM} all"), *halves]
    assert [float(cell) for cell in row[:3]] == pytest.approx(scores, abs=0.06)
    assert float(row[3]) == pytest.approx(average(file, "flops") / average("naive", "flops"), abs=0.006)
    assert int(row[4]) == len(runs(file))


def test_the_tables_of_the_first_run() -> None:
    page = (ROOT / "docs" / "tutorial" / "first-run.md").read_text(encoding="utf-8")
    replay = runs("replay")[0]
    ends = [f"{float(value):.1f}" for key, value in replay.items() if key.startswith("end ")]
    assert ["610k", *ends] == re.findall(r"^4 exam- (.*)$", page, re.MULTILINE)[0].split()
    for run in ("naive", "replay"):
        told = re.findall(rf"^{run} . +(\S+)(?: ▲)? +(\S+)", page, re.MULTILINE)[0]
        assert [float(number.replace("−", "-")) for number in told] == pytest.approx(
            [change(run, EXAM), change(run, *GENERAL)], abs=0.06
        )


def change(file: str, *exams: str) -> float:
    """Since the base, with the first seed."""
    run = runs(file)[0]
    return mean(float(run[f"end {exam} all"]) - float(run[f"base {exam} all"]) for exam in exams)
