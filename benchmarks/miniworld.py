"""All experiment files on MiniWorld: every method, several seeds and worlds, equal domain tokens and equal FLOPs.

    make miniworld-table          (or: python benchmarks/miniworld.py --jobs 2)

Runs go to runs/miniworld/; what they found is kept in docs/results/miniworld.csv, which is committed. A run in it whose
experiment file says the same as then is not repeated, so another machine, or another day, goes on where this one ended.
The experiment files are the settings, as they stand. At the end the page and its picture are made (miniworld_page.py).
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from miniworld_page import PAGE, make_page
from miniworld_records import EXPERIMENTS, NEAR, ROOT, RUNS, WORLDS, Run, add_records, methods, read_records

from clmed.results.plots import plot_runs
from clmed.results.rundir import is_run

CURVES = ("naive", "replay", "ewc", "interleave", "joint")


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    parser.add_argument("--page", action="store_true", help="run nothing: the page from what is there")
    options = parser.parse_args()
    failed = [] if options.page else Batch(options.jobs).all(options.seeds)
    make_page(read_records())
    draw_curves(options.seeds[0])
    if failed:
        raise SystemExit("failed: " + ", ".join(map(str, failed)))


def draw_curves(seed: int) -> None:
    """The forgetting curves of a few methods beside the page, where the directories of their runs are here."""
    runs = [folder(Run(file=file, seed=seed)) for file in CURVES]
    if all(map(is_run, runs)):
        for figure in plot_runs(runs, RUNS, only=["forgetting"]):
            figure.replace(PAGE.with_name(f"synthetic-miniworld{figure.suffix}"))


def front() -> list[str]:
    """The trivial front, but for naive training, which is a method's file too."""
    return sorted(f"trivial/{file.stem}" for file in (EXPERIMENTS / "trivial").glob("*.yaml") if file.stem != "naive")


class Batch:
    """Runs in a few processes, their results written down as each ends."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.failed: list[Run] = []

    def all(self, seeds: Sequence[int]) -> list[Run]:
        """One seed in all worlds and with equal FLOPs before the other seeds; returns what failed."""
        naive, *others = methods()
        files = [naive, *front(), *others]
        self.each([Run(file=naive, seed=seeds[0])])  # its base model's scores are taken by the others
        self.each([Run(file=file, seed=seeds[0]) for file in files])
        self.each([Run(file=file, seed=seeds[0], world=world) for file in files for world in WORLDS[1:]])
        for _ in range(2):  # what does not grow with the budget (a pass for Fisher information) may ask for a second
            self.each(list(scaled(others, seeds[:1])))
        self.each([Run(file=file, seed=seed) for seed in seeds[1:] for file in files])
        self.each(list(scaled(others, seeds)))
        return self.failed

    def each(self, runs: Sequence[Run]) -> None:
        """Those of them that are not recorded."""
        known = {record.run for record in read_records()}
        missing = [run for run in runs if run not in known]
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are known, {len(missing)} to do", flush=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self.one, missing))

    def one(self, run: Run) -> None:
        """One run in a process of its own, unless another batch has done it by now."""
        if run in {record.run for record in read_records()}:
            return
        place = folder(run)
        command = [sys.executable, "-m", "clmed", "run", run.path, *run.overrides(), "-o", place, "--overwrite"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            self.failed.append(run)
            print(f"{run} failed:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}", flush=True)
            return
        add_records(run.found(place))
        print(f"{run} done", flush=True)


def folder(run: Run) -> Path:
    """Where a run goes."""
    budget = "" if run.scale == 1 else f"-x{run.scale:.4f}"
    return RUNS / run.world / f"{run.file.replace('/', '-')}-{run.seed}{budget}"


def scaled(files: Sequence[str], seeds: Sequence[int]) -> Iterator[Run]:
    """Runs of methods that cost other FLOPs than naive training, with token budgets that make them cost the same.

    The budgets are scaled by naive's FLOPs ÷ the method's, both measured with the first seed; where a part of the cost
    does not grow with them, by the straight line through the two nearest budgets measured so far.
    """
    own = [record for record in read_records() if record.run.world == WORLDS[0] and record.alpha is None]
    for file in files:
        measured = {r.run.scale: r.flops for r in own if r.run.file == file and r.run.seed == seeds[0]}
        goal = next(r.flops for r in own if r.run.file == "naive" and r.run.seed == seeds[0])
        if 1.0 in measured and measured[1.0] and abs(measured[1.0] / goal - 1) > NEAR:
            yield from (Run(file=file, seed=seed, scale=next_scale(measured, goal)) for seed in seeds)


def next_scale(measured: dict[float, float], goal: float) -> float:
    """The scale measured to be near the goal; else the one to try next. measured: FLOPs by scale."""
    nearest, *others = sorted(measured, key=lambda scale: abs(measured[scale] - goal))
    if abs(measured[nearest] / goal - 1) <= NEAR:
        return nearest
    if not others:
        return round(goal / measured[nearest], 4)
    slope = (measured[nearest] - measured[others[0]]) / (nearest - others[0])
    return round(nearest + (goal - measured[nearest]) / slope, 4)


if __name__ == "__main__":
    main()
