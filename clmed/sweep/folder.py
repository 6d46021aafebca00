"""The folder of a sweep.

    sweep.yaml               what the sweep is: the experiment that all runs share, and the keys that change
    experiments/<run>.yaml   the experiment of each run, with every default written out
    logs/<run>.log           what each said
    <run>/                   the run, such as ratio=0.05,seed=1/
    summary.md  summary.csv

The same command goes on in its folder, and so does one with more values for the same keys.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from clmed import yamlfile
from clmed.catalogue import find
from clmed.config import dump
from clmed.errors import UserError
from clmed.results.differences import differences
from clmed.results.files import disk_errors, write_whole
from clmed.results.rundir import RunDirectory, is_run
from clmed.sweep.grid import GridPoint

SWEEP = "sweep.yaml"
EXPERIMENTS = "experiments"
LOGS = "logs"


class SweepFolder:
    """The constructor touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, point: GridPoint) -> RunDirectory:
        """Where the run of a point is, or will be."""
        return RunDirectory(self.path / point.name)

    def experiment(self, point: GridPoint) -> Path:
        return self.path / EXPERIMENTS / f"{point.name}.yaml"

    def log(self, point: GridPoint) -> Path:
        return self.path / LOGS / f"{point.name}.log"

    def is_done(self, point: GridPoint) -> bool:
        """Whether this very run is complete."""
        run = self.run(point)
        if not is_run(run.path) or run.status()["state"] != "complete":
            return False
        return not differences(run.config(), yaml.safe_load(dump(point.config)))

    def take(self, identity: Mapping[str, Any], points: Sequence[GridPoint]) -> None:
        """Make the folder, or go on in it. Raises UserError, and changes nothing, if it is another's.

        identity: what must be the same for runs to stand in one folder, the `keys` that change and the `experiment`.
        """
        self._refuse_others(identity)
        own = find("naive").path.parent  # clmed's, which no run writes down
        files = [find(name).path for name in {name for point in points for name in point.config.strategy}]
        today = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.parent != own}
        for point in points:
            if self.is_done(point):
                self._refuse_changed_strategies(point, today)
            else:
                self.run(point).refuse_if_taken(dump(point.config))
        with disk_errors(self.path):
            (self.path / EXPERIMENTS).mkdir(parents=True, exist_ok=True)
        write_whole(self.path / SWEEP, yamlfile.dump(dict(identity)).encode())
        for point in points:
            write_whole(self.experiment(point), dump(point.config).encode())

    def _refuse_changed_strategies(self, point: GridPoint, today: Mapping[str, str]) -> None:
        """today: the SHA-256 of each strategy's file, by its name."""
        run = self.run(point)
        for name, digest in run.environment().get("strategies", {}).items():
            if today.get(name, digest) != digest:
                raise UserError(
                    f"{run.path} was made with another {name}, and would be compared with runs of today's: "
                    "put the file back, or give another folder with --output."
                )

    def _refuse_others(self, new: Mapping[str, Any]) -> None:
        other = "give another folder with --output"
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a folder for a sweep; {other}.")
        if is_run(self.path):
            raise UserError(f"{self.path} is the folder of a run, not of a sweep; {other}.")
        file = self.path / SWEEP
        if not file.exists():
            if visible := sorted(each.name for each in self.path.iterdir() if not each.name.startswith(".")):
                raise UserError(f"{self.path} holds files that are not a sweep ({', '.join(visible[:4])}); {other}.")
            return
        try:
            old = yaml.safe_load(file.read_text(encoding="utf-8"))
            keys, experiment = list(old["keys"]), dict(old["experiment"])
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
            raise UserError(f"{file} is damaged ({type(error).__name__}); {other}, or delete it.") from None
        if keys != new["keys"]:
            raise UserError(
                f"{self.path} belongs to another sweep, over {', '.join(keys)}, not {', '.join(new['keys'])}; {other}."
            )
        if changes := differences(experiment, new["experiment"]):
            raise UserError(f"{self.path} belongs to a sweep of another experiment: {'; '.join(changes[:4])}; {other}.")
