"""What the summary of a sweep says where a number is missing."""

import csv
import math
from pathlib import Path

import pytest

from clmed.config import dump
from clmed.errors import UserError
from clmed.results.rundir import RunDirectory
from clmed.sweep import summary
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import Grid, GridPoint
from clmed.sweep.surface import Varied
from tests.command import write_tiny

GRID = ["stream.pretraining.tokens=2k,4k,8k", "seed=0,1", "stream.pretraining.measure_at=[]"]
COSTS = {"all_tokens": 1, "flops": 1.0, "train_seconds": 1.0}
ASKED = {"experience": "pretraining", "shots": 0, "questions": 100}


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SweepFolder, list[GridPoint]]:
    """Three settings with two seeds each, without a retention benchmark; one run diverged."""
    monkeypatch.chdir(tmp_path)
    folder, points = SweepFolder(tmp_path / "sweep"), Grid.of(write_tiny(tmp_path), GRID).points()
    for point in points:
        run = RunDirectory.create(folder.run(point).path, dump(point.config), {})
        row = {"benchmark": "cmexam", "role": "gain", "category": "all", "metric": "accuracy", "final": True}
        end = math.nan if point.name == "tokens=4k,seed=1" else 0.5
        run.add_results(
            [
                row | COSTS | ASKED | {"point": number, "tokens": number, "score": (0.25, end)[number]}
                for number in (0, 1)
            ]
        )
        run.set_status("complete")
    return folder, points


def test_no_number_and_nothing_measured_are_told_apart(swept: tuple[SweepFolder, list[GridPoint]]) -> None:
    folder, points = swept
    found = summary.settings(folder, points)
    assert [(each.shown("gain"), each.shown("retention")) for each in found] == [
        ("+25.0 ± 0.0", "–"),
        ("NaN", "–"),
        ("+25.0 ± 0.0", "–"),
    ]
    (note,) = summary.notes(folder, points)
    assert note.startswith("tokens=4k,seed=1 has no number (NaN) as its score of cmexam at point 1: ")
    summary.write(folder, points, found, [note, "What the columns are."])
    text = (folder.path / "summary.md").read_text()
    assert text.endswith(f"|\n\n{note}\n\nWhat the columns are.\n") and "| 4k | 2 | NaN | – |" in text
    with (folder.path / "summary.csv").open(newline="") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert rows["tokens=4k,seed=1"]["gain"] == "nan" and rows["tokens=4k,seed=0"]["gain"] == "0.25"


def test_a_surface_names_the_run_that_has_no_number(swept: tuple[SweepFolder, list[GridPoint]]) -> None:
    folder, points = swept
    with pytest.raises(UserError, match=r"--surface: tokens=4k,seed=1 has no number \(NaN\)"):
        Varied.of(points).surfaces(folder, points)
