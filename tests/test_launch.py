"""The ways to start several processes, each with real ones: accelerate launch, torchrun, the Slurm script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clmed.results.rundir import RunDirectory
from tests.command import process, write_tiny

SCRIPT = Path(__file__).parent.parent / "experiments" / "slurm" / "run.sh"
RUN = ("-m", "clmed", "run", "tiny.yaml", "-o", "run")
LAUNCH = ("accelerate.commands.launch", "--num_processes", "2")


def assert_two_ranks(folder: Path) -> None:
    run = RunDirectory.open(folder / "run")
    assert run.status()["state"] == "complete"
    assert json.loads((run.path / "environment.json").read_text())["ranks"] == 2
    assert {row["point"] for row in run.results()} == {0, 1, 2, 3}
    assert (run.model / "model.safetensors").is_file()


def test_accelerate_launch(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    done = process(tmp_path, *LAUNCH, "--use_fsdp", "--main_process_port", "0", *RUN)
    assert done.code == 0, done.err
    assert_two_ranks(tmp_path)


@pytest.mark.full
def test_accelerate_launch_that_starts_one_process_for_two_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    done = process(tmp_path, *LAUNCH, "--cpu", *RUN)
    assert done.code != 0 and "asked for several processes but started only one" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_torchrun_with_two_copies_of_the_model(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    done = process(tmp_path, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *RUN,
                   "training.shard_ranks=1")  # fmt: skip
    assert done.code == 0, done.err
    assert_two_ranks(tmp_path)


# What the script needs of Slurm, on this machine: tasks with their numbers, to which a signal to srun is passed on.
SRUN = """#!{python}
import os, signal, subprocess, sys
command = sys.argv[2:]  # after --wait
number = lambda rank: {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}}
tasks = [subprocess.Popen(command, env=os.environ | number(rank)) for rank in range(int(os.environ["SLURM_NTASKS"]))]
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> scontrol.log; fi
"""


@pytest.mark.full
def test_the_slurm_script_saves_at_the_time_limit_requeues_and_ends(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, content in {"srun": SRUN.format(python=sys.executable), "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2"}
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **job, "SLURM_NTASKS_PER_NODE": "2", "PATH": path}
    command = [str(SCRIPT), "tiny.yaml", "stream.0.tokens=60k", "-o", "run"]
    first = subprocess.Popen(command, cwd=tmp_path, env=environment)
    steps = tmp_path / "run" / "train.jsonl"
    until = time.monotonic() + 200
    while not steps.exists() or steps.read_bytes().count(b"\n") < 4:
        assert first.poll() is None and time.monotonic() < until
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
    assert first.wait(timeout=200) == 75
    assert RunDirectory.open(tmp_path / "run").status()["state"] == "stopped"
    requeued = (tmp_path / "scontrol.log").read_text()
    assert requeued == f"requeue {job['SLURM_JOB_ID']}\n"
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=300).returncode == 0
    assert_two_ranks(tmp_path)
    assert (tmp_path / "scontrol.log").read_text() == requeued
