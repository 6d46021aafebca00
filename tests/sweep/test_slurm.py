"""Runs as jobs of submitit, with its local executor in place of Slurm."""

import os
import signal
import time
from pathlib import Path

import pytest

from clmed.config import dump, load
from clmed.errors import UserError
from clmed.results.rundir import RunDirectory
from clmed.sweep.slurm import SlurmJobs, parameters
from tests.command import write_tiny

submitit = pytest.importorskip("submitit")


def test_a_preempted_job_saves_is_queued_again_and_goes_on(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    experiment, run = tmp_path / "run.yaml", RunDirectory(tmp_path / "run")
    experiment.write_text(dump(load(write_tiny(tmp_path), ["stream.0.tokens=60k", "training.save_every=100000"])))
    jobs = SlurmJobs(tmp_path, 1, ["timeout_min=60"], cluster="local")
    job = jobs.start(experiment, run.path, tmp_path / "log")
    _until(lambda: len(run.training()) > 4)
    assert job.poll() is None
    # Another command finds the job that is there.
    again = SlurmJobs(tmp_path, 1, ["timeout_min=60"], cluster="local").start(experiment, run.path, tmp_path / "log")
    assert again._job.job_id == job._job.job_id and len(list(tmp_path.glob("jobs/*/*submitted.pkl"))) == 1
    before = len(run.training())
    controller = job._job.job_id  # a process, whose child is the job's task
    task = int(Path(f"/proc/{controller}/task/{controller}/children").read_text().split()[0])
    os.kill(task, signal.SIGUSR2)  # what Slurm sends
    _until(lambda: job.poll() is not None)
    assert job.poll() == 0, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert log.count("the same command goes on from there") == 1 and log.count("going on from") == 1
    assert run.status()["state"] == "complete" and len(run.training()) > before


def test_a_run_that_fails_is_no_job_that_fails(tmp_path: Path) -> None:
    jobs = SlurmJobs(tmp_path, 1, ["timeout_min=60"], cluster="local")
    job = jobs.start(tmp_path / "nowhere.yaml", tmp_path / "run", tmp_path / "log")
    _until(lambda: job.poll() is not None)
    assert job.poll() == 2 and "no such file" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("option", ["gpus", "gpus_per_node=", "nonsense_x=1", "timeout_min=[", "timeout_min=soon"])
def test_options_that_submitit_does_not_know(tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match="--slurm-option"):
        SlurmJobs(tmp_path, 1, [option], cluster="local").start(tmp_path / "e", tmp_path / "run", tmp_path / "log")


def test_a_job_is_warned_in_time_and_not_at_its_start() -> None:
    """Ten minutes before the end of five, which are submitit's default, would be at once: requeued for ever."""
    assert parameters({})["timeout_min"] == 1440 and parameters({})["slurm_signal_delay_s"] == 600
    assert parameters({"timeout_min": 5})["slurm_signal_delay_s"] == 75
    assert parameters({"slurm_time": 8})["slurm_signal_delay_s"] == 120
    assert parameters({"slurm_signal_delay_s": 30, "slurm_time": "2-00:00:00"})["slurm_signal_delay_s"] == 30


def test_where_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="there is no sbatch on this machine"):
        SlurmJobs(tmp_path, 1, [])


def _until(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
