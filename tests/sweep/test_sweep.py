"""A sweep with real runs: what is shared is done once, a failure stops nobody, and the same command goes on."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from clmed.config import dump
from clmed.errors import UserError
from clmed.results.rundir import RunDirectory
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import Grid
from clmed.sweep.running import run_all
from tests.command import files, in_process, write_tiny

SHARE = "training.share_experiences=true"
RATES = "stream.1.optimizer.lr=1e-3,2e-3,1e30"
FAILS = "lr=1e30"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """The current folder with a sweep whose last run diverges; what it said, and the mistakes."""
    folder = tmp_path_factory.mktemp("swept")
    write_tiny(folder)
    done = subprocess.run(
        [sys.executable, "-m", "clmed", "sweep", "tiny.yaml", RATES, SHARE, "--jobs", "2"],
        cwd=folder,
        env={**os.environ, "CLMED_CACHE": str(folder / "cache"), "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CLMED_CACHE", str(folder / "cache"))
        yield folder, done.stdout, done.stderr


def test_a_failure_is_told_at_the_end_and_stops_nobody(swept: tuple[Path, str, str]) -> None:
    folder, out, _ = swept
    sweep = folder / "runs" / "tiny-sweep"
    states = {name: RunDirectory(sweep / name).status()["state"] for name in ("lr=1e-3", "lr=2e-3", FAILS)}
    assert states == {"lr=1e-3": "complete", "lr=2e-3": "complete", FAILS: "stopped"}
    told = out[out.index("1 of 3 runs failed") :]
    assert FAILS in told and "runs/tiny-sweep/logs/lr=1e30.log" in told and "lr=2e-3" not in told
    assert "loss" in (sweep / "logs" / f"{FAILS}.log").read_text()


def test_what_runs_share_was_done_once(swept: tuple[Path, str, str]) -> None:
    sweep = swept[0] / "runs" / "tiny-sweep"
    taken = {
        name: {row["point"] for row in RunDirectory(sweep / name).results() if "taken_from" in row}
        for name in ("lr=1e-3", "lr=2e-3", FAILS)
    }
    # Base, milestone and end of the first experience; the second is its own.
    assert taken == {"lr=1e-3": set(), "lr=2e-3": {0, 1, 2}, FAILS: {0, 1, 2}}


def test_the_summary_has_a_row_for_each_setting(swept: tuple[Path, str, str]) -> None:
    folder, out, _ = swept
    text = (folder / "runs" / "tiny-sweep" / "summary.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["lr", "1e-3", "2e-3"]
    lines = (folder / "runs" / "tiny-sweep" / "summary.csv").read_text().splitlines()
    assert lines[0] == "run,stream.1.optimizer.lr,gain,retention,tokens,all_tokens,flops,train_seconds"
    assert len(lines) == 3 and "FLOPs" in out


class Recorded:
    """Where runs would be started."""

    most, outlive = 2, False

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, experiment: Path, run: Path, log: Path) -> "Recorded":
        self.started.append(run.name)
        return self

    def poll(self) -> int:
        return 3

    def stop(self) -> None: ...

    def kill(self) -> None: ...


def test_complete_runs_are_not_repeated_and_failed_ones_are_tried_again(swept: tuple[Path, str, str]) -> None:
    grid = Grid.of(Path("tiny.yaml"), [f"{RATES},3e-3", SHARE])
    points = grid.points()
    folder, jobs, said = SweepFolder(Path("runs/tiny-sweep")), Recorded(), list[str]()
    folder.take(grid.identity, points)
    state = run_all(folder, points, jobs, said.append)
    assert jobs.started == [FAILS, "lr=3e-3"], "a value more for the same key is one run more"
    assert [point.name for point in state.done] == ["lr=1e-3", "lr=2e-3"] and set(state.failed) == {FAILS, "lr=3e-3"}
    assert said[0] == "2 of 4 runs are done already" and "exit code 3" in state.failed["lr=3e-3"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1", SHARE], "belongs to another sweep, over stream.1.optimizer.lr, not seed"),
        ([RATES], "belongs to a sweep of another experiment: training.share_experiences"),
        ([RATES, SHARE, "-o", "runs/tiny-sweep/lr=1e-3"], "is the folder of a run"),
        ([RATES, SHARE, "-o", "cache"], "holds files that are not a sweep"),
        ([RATES, SHARE, "-o", "tiny.yaml"], "is a file"),
        ([RATES, "--slurm-option", "a=b"], "--slurm-option is for --slurm"),
    ],
)
def test_folders_of_others_are_left_alone(
    swept: tuple[Path, str, str], arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files(Path("runs"))
    in_process(capfd, "sweep", "tiny.yaml", *arguments).is_mistake(words)
    assert files(Path("runs")) == before


class Orphaned(Recorded):
    """A killed sweep's run goes on, and ends before the new one has looked at its folder: "complete: nothing to do"."""

    def start(self, experiment: Path, run: Path, log: Path) -> "Recorded":
        RunDirectory.create(run, experiment.read_text(), {}).set_status("complete")
        return super().start(experiment, run, log)

    def poll(self) -> int:
        return 2


def test_a_run_that_ends_by_another_hand_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    grid = Grid.of(Path("tiny.yaml"), ["seed=0,1"])
    folder = SweepFolder(Path("sweep"))
    folder.take(grid.identity, grid.points())
    state = run_all(folder, grid.points(), Orphaned(), print)
    assert [point.name for point in state.done] == ["seed=0", "seed=1"] and not state.failed


def test_runs_of_a_strategy_that_has_been_edited_are_not_taken_for_those_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    mine = Path("mine.py")
    mine.write_text("from clmed.strategy import Strategy\n\n\nclass Mine(Strategy):\n    pass\n")
    grid = Grid.of(Path("tiny.yaml"), ["strategy={},{mine.py:Mine: {}}", "seed=0"])
    points, folder = grid.points(), SweepFolder(Path("sweep"))
    folder.take(grid.identity, points)
    for point in points:
        digest = hashlib.sha256(mine.read_bytes()).hexdigest()
        written = {"strategies": {"mine.py": digest} if point.config.strategy else {}}
        RunDirectory.create(folder.run(point).path, dump(point.config), written).set_status("complete")
    folder.take(grid.identity, points)
    mine.write_text(mine.read_text().replace("pass", "margin = 2"))
    with pytest.raises(UserError, match=r"Mine.* was made with another mine\.py"):
        folder.take(grid.identity, points)


def test_ctrl_c_lets_the_run_save(swept: tuple[Path, str, str]) -> None:
    command = [sys.executable, "-m", "clmed", "sweep", "tiny.yaml", "seed=0,1", "stream.0.tokens=10M", "-o", "long"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs the tests in the background has it ignored
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=heard)
    run = RunDirectory(Path("long/seed=0"))
    until = time.monotonic() + 300
    while len(run.training()) < 3 and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 130 and "asking seed=0 to save" in out and out.endswith("stopped\n"), out
    assert run.status()["state"] == "stopped" and "asked" in run.status()["reason"]
    assert list(run.checkpoints.glob("*/manifest.json")) and not Path("long/seed=1").exists()
    assert not Path(f"/proc/{run.status()['pid']}").exists()
