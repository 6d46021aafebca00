"""Runs on this machine: `clmed run` in processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Job(Protocol):
    """A run that was started somewhere."""

    def poll(self) -> int | None:
        """The exit code; None as long as it runs or waits for a machine."""

    def stop(self) -> None:
        """Ask it to save where it stands, and end."""

    def kill(self) -> None:
        """End it at once."""


class Jobs(Protocol):
    """Where runs are started. most: how many at once; outlive: whether they go on without the sweep."""

    most: int
    outlive: bool

    def start(self, experiment: Path, run: Path, log: Path) -> Job:
        """`clmed run EXPERIMENT -o RUN`, with what it says in a log."""


class Process:
    """In a process group of its own: Ctrl-C on the terminal reaches the sweep alone, which asks its runs to save."""

    def __init__(self, experiment: Path, run: Path, log: Path, environment: Mapping[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command(experiment, run),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()


class Processes:
    """At most `most` at once.

    Beside each other they have one torch thread each, unless OMP_NUM_THREADS says otherwise, and of the GPUs in
    CUDA_VISIBLE_DEVICES one each, where there are enough.
    """

    outlive = False

    def __init__(self, most: int) -> None:
        self.most = most
        self._places: dict[int, Process] = {}

    def start(self, experiment: Path, run: Path, log: Path) -> Process:
        place = next(n for n in range(self.most) if n not in self._places or self._places[n].poll() is not None)
        self._places[place] = Process(experiment, run, log, self._environment(place))
        return self._places[place]

    def _environment(self, place: int) -> dict[str, str]:
        if self.most == 1:
            return {}
        found = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        return found | ({"CUDA_VISIBLE_DEVICES": gpus[place]} if self.most <= len(gpus) else {})


def command(experiment: Path, run: Path) -> list[str]:
    """The run of an experiment file."""
    return [sys.executable, "-m", "clmed", "run", str(experiment), "-o", str(run)]
