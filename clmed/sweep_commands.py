"""`clmed sweep`: many runs of one experiment; `clmed tune`: methods compared when each is tuned alike."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clmed.errors import UserError

if TYPE_CHECKING:
    from clmed.sweep.local import Jobs

FILE = click.Path(path_type=Path)
ALL = 1_000_000  # jobs in a queue at once


def on_machines(command: Callable[..., None]) -> Callable[..., None]:
    """The options of where runs are started."""
    for option in (
        click.option("--slurm-option", multiple=True, metavar="KEY=VALUE", help="As submitit takes it; may repeat."),
        click.option("--slurm", is_flag=True, help="Each run is a job of its own."),
        click.option("--jobs", type=click.IntRange(min=1), help="Runs at the same time: 1, on Slurm all, by default."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("file", type=FILE)
@click.argument("overrides", nargs=-1, required=True, metavar="KEY=VALUE,VALUE...")
@on_machines
@click.option("--surface", is_flag=True, help="Fit gain and forgetting over the numbers that change.")
@click.option("-o", "--output", type=FILE, help="The sweep's directory; runs/<name>-sweep by default.")
def sweep(
    file: Path,
    overrides: tuple[str, ...],
    jobs: int | None,
    slurm: bool,
    slurm_option: tuple[str, ...],
    surface: bool,
    output: Path | None,
) -> None:
    """Run the experiment in FILE with every combination of the values.

    Commas separate the values of a key; what stands in brackets or quotes is one value. A key with one value is the
    same in all runs. All runs are checked before the first one starts. What several have in common (the base model's
    measurement, experiences that begin alike) is done once.

    The same command goes on where it was stopped, tries failed runs again, and leaves complete ones alone; with more
    values for the same keys it adds runs. Ctrl-C lets the runs save. docs/sweeps.md has more.

    \b
    Examples:
      clmed sweep experiments/replay.yaml strategy.replay.ratio=0,0.01,0.05,0.25 seed=0,1,2 --jobs 2
      clmed sweep experiments/base.yaml "strategy={},{ewc: {fisher_from: [english_texts]}}" seed=0,1,2
      clmed sweep experiments/base.yaml stream.0.tokens=125k,250k,500k stream.1.tokens=27k,55k,110k seed=0,1,2 \\
          "stream.0.measure_at=[]" --surface
      clmed sweep experiments/ewc.yaml strategy.ewc.strength=1e2,1e4,1e6 --slurm \\
          --slurm-option slurm_partition=gpu --slurm-option gpus_per_node=1 --slurm-option timeout_min=240
    """
    from clmed.sweep.command import sweep as work
    from clmed.sweep.folder import SweepFolder
    from clmed.sweep.grid import Grid

    grid = Grid.of(file, overrides)
    points = grid.points()
    varied = None
    if surface:
        from clmed.sweep.surface import Varied

        varied = Varied.of(points)
    folder = SweepFolder(output or Path("runs") / f"{grid.name}-sweep")
    where = _where(folder.path, jobs, slurm, slurm_option)
    folder.take(grid.identity, points)
    if not work(folder, points, where, varied):
        sys.exit(1)


@click.command()
@click.argument("file", type=FILE)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@on_machines
@click.option("-o", "--output", type=FILE, help="The tuning's directory; runs/<name>-tuning by default.")
def tune(
    file: Path,
    overrides: tuple[str, ...],
    jobs: int | None,
    slurm: bool,
    slurm_option: tuple[str, ...],
    output: Path | None,
) -> None:
    """Compare the methods in FILE, each tuned alike.

    Every method gets the same number of trials within its published search space, and every run the same FLOPs, all
    that a method adds included. What is chosen on the validation benchmarks is then judged once on the test
    benchmarks, beside each method as its file has it. Validation and test must not share a question. The same command
    goes on where it was stopped. docs/sweeps.md describes the file.

    \b
    Examples:
      clmed tune experiments/tuning.yaml --jobs 2
      clmed tune experiments/tuning.yaml trials=16 "experiments=[naive.yaml, replay.yaml]"
    """
    from clmed.config.tuning import load_tuning
    from clmed.tuning.command import tell
    from clmed.tuning.compare import Tuning

    config = load_tuning(file, overrides)
    folder = output or Path("runs") / f"{config.name}-tuning"
    where = _where(folder, jobs, slurm, slurm_option)
    if not tell(Tuning(config, file, folder), where):
        sys.exit(1)


def _where(folder: Path, jobs: int | None, slurm: bool, options: tuple[str, ...]) -> "Jobs":
    """Where runs are started."""
    if options and not slurm:
        raise UserError("--slurm-option is for --slurm.")
    if slurm:
        from clmed.sweep.slurm import SlurmJobs

        return SlurmJobs(folder, jobs or ALL, options)
    from clmed.sweep.local import Processes

    return Processes(jobs or 1)
