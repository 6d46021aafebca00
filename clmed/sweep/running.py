"""run_all: every run of a sweep, each in a process of its own, in an order in which what they share is done once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clmed.planning import duration
from clmed.results.table import summary
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import GridPoint
from clmed.sweep.local import Job, Jobs
from clmed.sweep.order import Doing, beginnings, reached, should_wait

POLL = 0.5  # seconds
STOPPED = 75
PATIENCE = 600  # seconds that a run has to save when it is asked to stop


@dataclass(kw_only=True)
class Progress:
    """How far a sweep is; failed: the runs that ended otherwise than they should, and why."""

    total: int
    done: list[GridPoint] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return len(self.done) + len(self.failed)


def run_all(
    folder: SweepFolder,
    points: Sequence[GridPoint],
    jobs: Jobs,
    say: Callable[[str], None],
    show: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Run what is not done. A run that fails does not stop the others.

    What interrupts this (Ctrl-C, SIGTERM) asks the runs in progress to save, and waits for them.
    """
    progress = Progress(total=len(points), done=[point for point in points if folder.is_done(point)])
    waiting = [point for point in points if point not in progress.done]
    known_by = {point.name: beginnings(point.config) for point in points}
    finished = [Doing(known_by[point.name], reached(folder.run(point))) for point in progress.done]
    running: list[tuple[GridPoint, Job, float]] = []
    if progress.done and waiting:
        say(f"{len(progress.done)} of {len(points)} runs are done already")
    try:
        while waiting or running:
            if waiting and len(running) < jobs.most:
                doing = [Doing(known_by[point.name], reached(folder.run(point))) for point, _, _ in running]
                # One at a time: what is started now is what the next may have to wait for.
                for point in waiting:
                    if not should_wait(known_by[point.name], doing, finished):
                        waiting.remove(point)
                        job = jobs.start(folder.experiment(point), folder.run(point).path, folder.log(point))
                        running.append((point, job, time.monotonic()))
                        progress.running[point.name] = time.monotonic()
                        break
            show(progress)
            time.sleep(POLL)
            for entry in list(running):
                point, job, started = entry
                if (code := job.poll()) is not None:
                    running.remove(entry)
                    del progress.running[point.name]
                    finished.append(Doing(known_by[point.name], reached(folder.run(point))))
                    say(_ended(folder, point, code, time.monotonic() - started, progress))
    except BaseException:
        if jobs.outlive:
            say("the jobs go on; the same command follows them again")
        else:
            _stop(running, say)
        raise
    show(progress)
    return progress


def _ended(folder: SweepFolder, point: GridPoint, code: int, seconds: float, progress: Progress) -> str:
    """Note how a run ended; what to say of it."""
    if folder.is_done(point):  # by whoever: a run that a killed sweep left behind may have ended in the meantime
        progress.done.append(point)
        found = summary(folder.run(point).results())
        return f"{progress.ended}/{progress.total}  {point.name}: done in {duration(seconds)}" + (
            f" ({found})" if found else ""
        )
    progress.failed[point.name] = _reason(folder, point, code)
    return f"{progress.ended}/{progress.total}  {point.name}: FAILED, {progress.failed[point.name]}"


def _reason(folder: SweepFolder, point: GridPoint, code: int) -> str:
    """The last line of its log, which names the mistake, or the exception."""
    log = folder.log(point)
    if code < 0:
        why = f"killed by signal {-code}"
    elif code == STOPPED:
        why = "stopped by somebody else; it has saved"
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        why = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
    return f"{why} (see {log})"


def _stop(running: Sequence[tuple[GridPoint, Job, float]], say: Callable[[str], None]) -> None:
    """Ask the runs to save, and wait; who interrupts once more does not wait."""
    alive = [(point, job) for point, job, _ in running if job.poll() is None]
    if alive:
        say(f"asking {', '.join(point.name for point, _ in alive)} to save; the same command goes on from there")
    for _, job in alive:
        job.stop()
    patience = time.monotonic() + PATIENCE
    try:
        while any(job.poll() is None for _, job in alive) and time.monotonic() < patience:
            time.sleep(POLL / 5)
    finally:
        for _, job in alive:
            if job.poll() is None:
                job.kill()
