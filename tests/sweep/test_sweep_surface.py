"""`clmed sweep --surface`: from the runs of a grid to the surfaces of gain and forgetting."""

import math
from pathlib import Path

import pytest

from clmed.config import ExperimentConfig, dump
from clmed.errors import UserError
from clmed.results.plots import surface as figure
from clmed.results.plots.style import render
from clmed.results.rundir import RunDirectory
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import Grid
from clmed.sweep.surface import Varied, balance, report
from tests.command import write_tiny

GRID = ["stream.pretraining.tokens=2k,4k,8k", "strategy.replay.ratio=0,0.1,0.2", "seed=0,1,2"]
PLAIN = "stream.pretraining.measure_at=[]"


def gain(config: ExperimentConfig) -> float:
    """Grows by 10 points with each doubling; replay costs 2 points at 0.2; seeds differ by a point."""
    tokens = config.stream[0].tokens or 1
    ratio = config.strategy["replay"]["ratio"]
    return 0.2 + 0.1 * math.log2(tokens / 4000) - 0.1 * ratio + (config.seed - 1) / 100


def retention(config: ExperimentConfig) -> float:
    """Best at a ratio of 0.15, whatever the tokens."""
    return -0.1 - 10 * (config.strategy["replay"]["ratio"] - 0.15) ** 2


def pretend(folder: SweepFolder, arguments: list[str]) -> list:
    points = Grid.of(write_tiny(Path()), arguments).points()
    for point in points:
        run = RunDirectory.create(folder.run(point).path, dump(point.config), {})
        for number in (0, 1):
            costs = {"tokens": 1, "all_tokens": 1, "flops": 1.0, "train_seconds": 1.0, "point": number}
            for role, change in (("gain", gain(point.config)), ("retention", retention(point.config))):
                row = {"benchmark": role, "role": role, "category": "all", "metric": "accuracy"}
                run.add_results([costs | row | {"score": 0.5 + number * change}])
        run.set_status("complete")
    return points


def test_the_surfaces_of_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(tmp_path / "sweep")
    points = pretend(folder, [*GRID, PLAIN])
    varied = Varied.of(points)
    assert [factor.name for factor in varied.factors] == ["tokens", "ratio"] and varied.seeds == ("0", "1", "2")
    surfaces = varied.surfaces(folder, points)
    assert surfaces["gain"].explained > 1 - 1e-9
    # Points: 20 in the middle, less a point of replay's; a doubling is 1 in the coded tokens.
    assert surfaces["gain"].coefficients.mean[:3] == pytest.approx([19, 10, -1])
    assert surfaces["gain"].coefficients.high[0] - surfaces["gain"].coefficients.low[0] == pytest.approx(
        2 * 2.484, 1e-3
    )
    best = balance(surfaces).setting
    assert best[0] == pytest.approx(8000) and best[1] == pytest.approx(0.145, abs=0.0026)
    text = report(varied, surfaces)
    assert "| 8k | 0.2 | +28.0 [+25.5, +30.5] | +12.5 [+12.5, +12.5] |" in text
    assert "at the edge for tokens" in text and "over 3 seeds" in text
    drawn = figure.draw(surfaces, varied.settings, best)
    assert [axes.get_title() for axes in drawn.axes] == ["gain, points of accuracy", "forgetting, points of accuracy"]
    assert [axes.get_xscale() for axes in drawn.axes] == ["log", "log"] and drawn.axes[0].get_yscale() == "linear"
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == ["2k", "4k", "8k"]
    Path("surface.png").write_bytes(render(drawn, "png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1"], "only the seed changes"),
        (["strategy={},{ewc: {fisher_from: [english]}}", "seed=0,1"], "is no number"),
        (["training.asynchronous_saves=true,false", "seed=0,1"], "is no number"),
        (["strategy.replay.ratio=0,0.1,0.2"], "two seeds at least"),
        (["strategy.replay.ratio=0,0.1", "stream.0.tokens=2k,4k,8k", "seed=0,1", PLAIN], None),
        (["stream.0.tokens=4k,8k", "stream.1.tokens=2k,4k", "seed=0,1", PLAIN], None),
    ],
)
def test_what_no_surface_can_be_fitted_to(
    arguments: list[str], words: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = Grid.of(write_tiny(tmp_path), arguments).points()
    if words is None:
        Varied.of(points)
        return
    with pytest.raises(UserError, match=words):
        Varied.of(points)
