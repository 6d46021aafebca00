"""One of several processes is killed: the others end with a message, and do not wait for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clmed.errors import LostRankError
from clmed.results.rundir import RunDirectory
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World, lost_rank_told
from tests.command import write_tiny
from tests.small import make_trainer, on_ranks, small_config


class Killed:
    """Kills its own process in the third step."""

    supports_distributed = True

    def before_backward(self, trainer: Any, **_: Any) -> None:
        if trainer.clock.train_iterations == 2:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("which", [0, 1])
def test_the_other_one_says_so_and_ends(which: int, tmp_path: Path, tokenizer: Any, make_model: Any) -> None:
    def work(world: World) -> None:
        config = small_config({})
        started = time.monotonic()
        with pytest.raises(LostRankError) as raised, lost_rank_told(world):  # noqa: SIM117
            with Checkpoints(tmp_path / "run", world=world) as checkpoints:
                trainer = make_trainer(config, make_model(1), tokenizer, world, checkpoints=checkpoints, save_every=1)
                trainer.benchmarks = []
                if world.rank == which:
                    trainer.plugins.insert(0, Killed())
                trainer.train(trainer.stream)
        assert time.monotonic() - started < 60  # the promise; it is a matter of milliseconds
        (tmp_path / "told").write_text(str(raised.value))
        os._exit(0)

    codes = [0, 0]
    codes[which] = -signal.SIGKILL
    with pytest.raises(AssertionError, match=rf"exit codes \[{codes[0]}, {codes[1]}\]"):
        on_ranks(2, work, tmp_path)
    told = (tmp_path / "told").read_text()
    assert told.startswith(f"process {1 - which} of 2 stops, because another one has ended")
    assert all(path.name.startswith(("0", ".")) for path in (tmp_path / "run").iterdir())


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), lost_rank_told(World(ranks=2)):
        raise RuntimeError("size mismatch")
    with pytest.raises(RuntimeError, match="gloo"), lost_rank_told(World()):
        raise RuntimeError("gloo")


def until(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 900
    while not moment():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.05)


def steps(run: Path) -> int:
    file = run / "train.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


LONG = ["stream.0.tokens=10M", "training.save_every=4", "-o", "run"]


@pytest.mark.full
def test_killed_under_torchrun(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    command = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "clmed", "run", "tiny.yaml", *LONG]
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(lambda: steps(tmp_path / "run") > 8, process)
    first = int(RunDirectory.open(tmp_path / "run").status()["pid"])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = (
        int(pid) for pid in children if int(pid) != first and b"clmed" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(other, signal.SIGKILL)
    killed = time.monotonic()
    out, _ = process.communicate(timeout=120)
    assert time.monotonic() - killed < 60 and process.returncode != 0
    assert "process 0 of 2 stops, because another one has ended" in out
    status = RunDirectory.open(tmp_path / "run").status()
    assert status["state"] == "stopped" and "another one has ended" in status["reason"]


@pytest.mark.full
@pytest.mark.parametrize("which", [0, 1])
def test_killed_without_a_launcher_that_watches(tmp_path: Path, which: int) -> None:
    """As under srun: nobody tells the other one."""
    write_tiny(tmp_path)
    port = 20000 + os.getpid() % 10000
    processes = []
    for rank in range(2):
        environment = {
            "RANK": rank,
            "WORLD_SIZE": 2,
            "LOCAL_RANK": rank,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "clmed", "run", "tiny.yaml", *LONG],
                cwd=tmp_path,
                env={**os.environ, **{key: str(value) for key, value in environment.items()}},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    until(lambda: steps(tmp_path / "run") > 8, processes[0])
    processes[which].kill()
    killed = time.monotonic()
    out, _ = processes[1 - which].communicate(timeout=120)
    assert time.monotonic() - killed < 60 and processes[1 - which].returncode == 1
    assert f"process {1 - which} of 2 stops, because another one has ended" in out and "Traceback" not in out
    processes[which].communicate()
