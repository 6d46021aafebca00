"""Real processes, really killed: the run goes on and ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clmed.results.rundir import RunDirectory, is_run
from tests.command import files, write_tiny

# Long enough to be hit, and saved often enough to be hit while saving.
LONGER = ["stream.0.tokens=40k", "stream.0.measure_at=[10k,20k]", "stream.1.tokens=15k", "training.save_every=4"]
NOT_COMPARED = {"seconds", "train_seconds", "time", "tokens_per_second", "peak_memory"}


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "clmed", "run", "tiny.yaml", *LONGER, "-o", output]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(folder: Path, output: str) -> str:
    process = start(folder, output)
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    return out


def hit(process: subprocess.Popen[str], moment: Callable[[], bool], with_signal: int) -> str:
    """Send the signal as soon as it is the moment; what the process had said."""
    until = time.monotonic() + 600  # only lest it wait for ever: a busy machine takes minutes to start a process
    while process.poll() is None and not moment():
        assert time.monotonic() < until, "the moment never came"
        time.sleep(0.001)  # often enough to see a save, without a core of its own
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, with_signal)
    return process.communicate(timeout=600)[0]


def steps(run: Path) -> int:
    """Lines of train.jsonl."""
    file = run / "train.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def points(run: Path) -> int:
    """Measurement points with an answer file."""
    return len(list((run / "answers").glob("*")))


def saving(run: Path) -> bool:
    return any((run / "checkpoints").glob(".*.partial"))


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in NOT_COMPARED} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = RunDirectory.open(one), RunDirectory.open(other)
    assert first.status()["state"] == second.status()["state"] == "complete"
    assert comparable(second.training()) == comparable(first.training())
    assert comparable(second.results()) == comparable(first.results())
    assert files(second.model)["model.safetensors"] == files(first.model)["model.safetensors"]
    answers = {name for name in files(one) if name.startswith("answers/")}
    assert answers == {name for name in files(other) if name.startswith("answers/")} != set()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of tiny.yaml with a run that nothing disturbed, as `whole`."""
    folder = tmp_path_factory.mktemp("resume")
    write_tiny(folder)
    finish(folder, "whole")
    return folder


def test_stopped_and_killed_in_a_step_a_save_and_a_measurement(undisturbed: Path) -> None:
    run = undisturbed / "run"
    out = hit(process := start(undisturbed, "run"), lambda: steps(run) > 6, signal.SIGTERM)
    assert process.returncode == 75 and "the same command goes on from there" in out
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "stopped" and "stopped as asked after step" in status["reason"]

    at = steps(run)
    out = hit(start(undisturbed, "run"), lambda: steps(run) > at + 3, signal.SIGKILL)
    assert f"step {at}," in out and "going on from" in out
    at = steps(run)
    hit(start(undisturbed, "run"), lambda: steps(run) > at - 3 and saving(run), signal.SIGKILL)
    known = points(run)
    hit(start(undisturbed, "run"), lambda: points(run) > known, signal.SIGKILL)  # the first benchmark of several
    finish(undisturbed, "run")
    assert_same_run(undisturbed / "whole", run)


def test_a_changed_configuration_is_refused_with_the_differences(undisturbed: Path) -> None:
    run = undisturbed / "changed"
    hit(start(undisturbed, "changed"), lambda: steps(run) > 6, signal.SIGTERM)
    command = [sys.executable, "-m", "clmed", "run", "tiny.yaml", *LONGER, "seed=7", "-o", "changed"]
    done = subprocess.run(command, cwd=undisturbed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "seed (0 there, 7 here)" in done.stderr
    assert RunDirectory.open(run).status()["state"] == "stopped"


@pytest.mark.full
def test_killed_at_twenty_random_moments(undisturbed: Path) -> None:
    rng, run, kills = random.Random(0), undisturbed / "often", 0
    while kills < 20:
        process = start(undisturbed, "often")
        try:
            out, _ = process.communicate(timeout=rng.uniform(6, 20))
            assert process.returncode == 0, out
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        if (
            is_run(run) and RunDirectory(run).status()["state"] == "complete"
        ):  # killed while it drew its curves, perhaps
            assert_same_run(undisturbed / "whole", run)
            shutil.rmtree(run)
    finish(undisturbed, "often")
    assert_same_run(undisturbed / "whole", run)
