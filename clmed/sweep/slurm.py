"""Runs on a Slurm cluster, each a job of its own, through submitit (extra `slurm`).

Before the time limit, or when it is preempted, Slurm signals the job; it asks the run to save and is queued again, and
goes on from the checkpoint. The jobs do not need the command that submitted them: the same command finds those that are
still queued or at work, by what is written under jobs/, and follows them again.
"""

import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from clmed.errors import UserError
from clmed.sweep.local import command

JOBS = "jobs"
MOST_REQUEUES = 1000
DAY = 24 * 60  # minutes
SAVING = 600  # seconds before the time limit at which a job is told to save, and that a run has for it


class ClmedRun:
    """What a job does, in each of its tasks: one process of the run, whose exit code is the result."""

    def __init__(self, experiment: Path, run: Path, log: Path) -> None:
        self.files = (experiment.absolute(), run.absolute(), log.absolute())
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        # Of several ranks all but the first have a result when their job is queued again: it is none any more.
        JobEnvironment().paths.result_pickle.unlink(missing_ok=True)
        several = TorchDistributedEnvironment()
        if several.world_size > 1:
            several.export(set_cuda_visible_devices=False, overwrite=True)
        experiment, run, log = self.files
        log.parent.mkdir(parents=True, exist_ok=True)
        # Slurm's warning goes to whole groups or, by cgroups, to every process: it would end this one, which cannot
        # know it. So it has a group of its own, and begins with the signal ignored.
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command(experiment, run), stdout=stream, stderr=subprocess.STDOUT, process_group=0, preexec_fn=_ignore
            )
        try:
            while (code := self._process.poll()) is None:  # wait() could not be entered again by `checkpoint`
                time.sleep(0.2)
            return code
        finally:
            if self._process.poll() is None:
                self._process.terminate()

    def checkpoint(self) -> Any:
        """Called by submitit in the midst of `__call__` when the time is up: what to queue in place of this job."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            until = time.monotonic() + SAVING
            while self._process.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
        return DelayedSubmission(ClmedRun(*self.files))


def _ignore() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


class SlurmJob:
    """A job in the queue or at work."""

    def __init__(self, job: Any, log: Path) -> None:
        self._job, self._log = job, log

    def poll(self) -> int | None:
        """The exit code of the task that fared worst; 1, with the reason in the log, for a job that came to nothing."""
        if not self._job.done():
            return None
        try:
            return max((int(code) for code in self._job.results()), key=abs)
        except Exception as error:  # whatever submitit has to say of a job that was cancelled, or whose node failed
            with self._log.open("a", encoding="utf-8") as stream:
                stream.write(f"{error}\njob {self._job.job_id} ended without a result (state {self._job.state})\n")
            return 1

    def stop(self) -> None:
        """A job outlives the command that follows it."""

    def kill(self) -> None:
        """As `stop`."""


class SlurmJobs:
    """most: how many are queued or at work at once; options: KEY=VALUE for submitit. Nothing is made before `start`."""

    outlive = True

    def __init__(self, folder: Path, most: int, options: Sequence[str], cluster: str = "slurm") -> None:
        if importlib.util.find_spec("submitit") is None:
            raise UserError("--slurm needs submitit: pip install 'clmed[slurm]'")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise UserError("--slurm: there is no sbatch on this machine; start it where jobs are submitted.")
        self.most = most
        self._folder = folder / JOBS
        self._cluster = cluster
        self._options = dict(map(_option, options))

    @cached_property
    def _executor(self) -> Any:
        import submitit

        self._folder.mkdir(parents=True, exist_ok=True)
        requeues = {f"{self._cluster}_max_num_timeout": MOST_REQUEUES}
        executor = submitit.AutoExecutor(self._folder / "%j", cluster=self._cluster, **requeues)
        try:
            executor.update_parameters(**parameters(self._options))
        except (NameError, AssertionError, ValueError) as error:
            raise UserError(f"--slurm-option: {' '.join(str(error).split())}") from None
        return executor

    def start(self, experiment: Path, run: Path, log: Path) -> SlurmJob:
        """Submit the run, or find the job that does it."""
        known = self._folder / f"{run.name}.pickle"
        job = _load(known)
        if job is None or job.done():
            job = self._executor.submit(ClmedRun(experiment, run, log))
            partial = known.with_suffix(f".{os.getpid()}")
            partial.write_bytes(pickle.dumps(job))
            partial.replace(known)
        return SlurmJob(job, log)


def parameters(options: Mapping[str, Any]) -> dict[str, Any]:
    """For submitit: a day's limit unless another is given; a warning before it, at three quarters at the earliest."""
    chosen = {"name": "clmed", "timeout_min": DAY, **options}
    minutes = chosen.get("slurm_time", chosen["timeout_min"])
    delay = min(SAVING, 15 * minutes) if isinstance(minutes, int) else SAVING
    return {"slurm_signal_delay_s": delay, **chosen}


def _load(file: Path) -> Any:
    """The job that was submitted for a run; None if none was, or it cannot be read."""
    try:
        return pickle.loads(file.read_bytes())
    except (OSError, pickle.PickleError, EOFError, AttributeError, ImportError):
        return None


def _option(text: str) -> tuple[str, Any]:
    """`gpus_per_node=1`, as submitit's update_parameters takes it."""
    key, sign, value = text.partition("=")
    try:
        if sign and key and value:
            return key, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"--slurm-option {text}: write KEY=VALUE, such as slurm_partition=gpu or timeout_min=240.")
