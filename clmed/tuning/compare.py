"""tune(config): which method is best when each is tuned alike. Read this first.

equal compute -> the same number of trials for each -> chosen by validation -> default and chosen judged by the test
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed import validation
from clmed.config import ExperimentConfig, load
from clmed.config.tuning import TuningConfig
from clmed.errors import UserError
from clmed.results.differences import differences
from clmed.results.files import write_whole
from clmed.results.rundir import RunDirectory, is_run
from clmed.sweep.folder import SweepFolder
from clmed.sweep.grid import GridPoint
from clmed.sweep.local import Jobs
from clmed.sweep.running import Progress, run_all
from clmed.sweep.summary import numbers
from clmed.tuning.budget import at_budget, flops
from clmed.tuning.overlap import refuse_overlap
from clmed.tuning.spaces import DEFAULT, FACTOR, RATE, Setting, Space, settings, space_of

CHOICE = "choice.json"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A method: its file's experiment, where its parameters are looked for, and the settings to try, its own first."""

    name: str
    config: ExperimentConfig
    space: Space
    tried: tuple[Setting, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """trial: the best by validation, 0 for the file's own setting; scores: of all trials, −inf where one diverged."""

    trial: int
    scores: tuple[float, ...]


class Tuning:
    """A tuning and its folder: trials/ and test/, a sweep's folder each, choice.json, tuning.md.

    Everything is checked here, before any work: raises UserError.
    """

    def __init__(self, config: TuningConfig, file: Path, folder: Path) -> None:
        self.config = config
        self.folder = folder
        loaded = [load(file.parent / name) for name in config.experiments]
        _refuse_unlike(loaded, config.experiments)
        first = loaded[0]
        self.budget = config.flops or flops(first.model_copy(update={"strategy": {}}))
        refuse_overlap(first, config.validation, config.test)
        self.contenders = [self._contender(each) for each in loaded]
        self.points = self._trial_points()
        self.trials = SweepFolder(folder / "trials")
        self.test = SweepFolder(folder / "test")
        self.identity: dict[str, Any] = {
            "file": str(file),
            "keys": ["setting"],
            "experiment": {
                "tuning": config.model_dump(mode="json"),
                "experiments": [each.model_dump(mode="json") for each in loaded],
            },
        }

    def _contender(self, config: ExperimentConfig) -> Contender:
        space = space_of(list(config.strategy), self.config.spaces)
        tried = settings(space, self.config.trials, self.config.seed)
        return Contender(name=config.name, config=config, space=space, tried=tuple(tried))

    def _trial_points(self) -> list[GridPoint]:
        """Every trial of every method, checked."""
        return [
            self._point(each, f"{each.name}-{number}", setting, self.config.seed, "validation")
            for each in self.contenders
            for number, setting in enumerate(each.tried)
        ]

    def test_points(self, choices: dict[str, Choice]) -> list[GridPoint]:
        """The file's own setting of every method and, where it is another, the chosen one, with every seed."""
        return [
            self._point(each, test_name(each, trial, seed), each.tried[trial], seed, "test")
            for each in self.contenders
            for trial in dict.fromkeys((0, choices[each.name].trial))
            for seed in self.config.seeds
        ]

    def _point(self, contender: Contender, name: str, setting: Setting, seed: int, part: str) -> GridPoint:
        data = contender.config.model_dump(mode="json")
        data |= {"name": name.partition(",")[0], "seed": seed}
        data["evaluation"] = getattr(self.config, part).model_dump(mode="json")
        for (strategy, parameter), value in setting.items():
            if (strategy, parameter) == (RATE, FACTOR):
                for experience in data["stream"]:
                    experience["optimizer"]["lr"] = float(f"{experience['optimizer']['lr'] * value:.4g}")
            else:
                data["strategy"][strategy][parameter] = value
        config = at_budget(ExperimentConfig.model_validate(data), self.budget)
        try:
            validation.check(config)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        return GridPoint(name=name, values={"setting": shown(setting)}, config=config)

    def choices(self) -> dict[str, Choice]:
        """By gain + retention on the validation benchmarks; written down, so that the test is scored for one choice."""
        found = {}
        for each in self.contenders:
            runs = [self.trials.run(point) for point in self.points if _is_of(point, each)]
            scores = tuple(-math.inf if diverged(run) else score(run) for run in runs)
            if max(scores) == -math.inf:
                raise UserError(f"every trial of {each.name} diverged; give smaller ranges under spaces.")
            found[each.name] = Choice(trial=scores.index(max(scores)), scores=scores)
        told = {
            name: {"trial": choice.trial, "scores": [s if math.isfinite(s) else None for s in choice.scores]}
            for name, choice in found.items()
        }
        write_whole(self.folder / CHOICE, (json.dumps(told, indent=2) + "\n").encode())
        return found


def tune(
    tuning: Tuning, jobs: Jobs, say: Callable[[str], None], show: Callable[[Progress], None] = lambda progress: None
) -> dict[str, Choice] | None:
    """Run what is not done; None if runs failed, which is said."""
    say(f"{len(tuning.points)} trials of {tuning.budget:.3g} FLOPs, chosen by validation")
    if not _all_run(tuning, tuning.trials, tuning.points, jobs, say, show):
        say("so nothing is chosen yet; the same command tries them again")
        return None
    choices = tuning.choices()
    test = tuning.test_points(choices)
    say(f"{len(test)} runs on the test benchmarks: each method as it is in its file, and as chosen")
    if not _all_run(tuning, tuning.test, test, jobs, say, show):
        say("the same command tries them again")
        return None
    return choices


def _all_run(
    tuning: Tuning,
    folder: SweepFolder,
    points: Sequence[GridPoint],
    jobs: Jobs,
    say: Callable[[str], None],
    show: Callable[[Progress], None],
) -> bool:
    """Run what is not done; whether nothing failed but by diverging."""
    folder.take(tuning.identity, points)
    state = run_all(folder, [point for point in points if not diverged(folder.run(point))], jobs, say, show)
    lost = [name for name in state.failed if not diverged(RunDirectory(folder.path / name))]
    if lost:
        say(f"{len(lost)} of {len(points)} runs failed ({', '.join(lost[:4])})")
    return not lost


def test_name(contender: Contender, trial: int, seed: int) -> str:
    """Of a run on the test benchmarks, in its folder."""
    return f"{contender.name}-{'tuned' if trial else 'default'},seed={seed}"


def score(run: RunDirectory) -> float:
    """What methods are chosen by: gain + retention, shares."""
    found = numbers(run.results())
    return found["gain"] + found["retention"]


def diverged(run: RunDirectory) -> bool:
    """Whether the loss of a run became no number: an outcome of a setting, not a failure."""
    return is_run(run.path) and run.status()["state"] == "stopped" and (run.checkpoints / "last-good").is_dir()


def shown(setting: Setting) -> str:
    """`ratio 0.05, learning rate x 0.3`; large numbers as 1.06e+10."""
    if setting == DEFAULT:
        return "as in its file"
    return ", ".join(
        ("learning rate × " if strategy == RATE else f"{parameter} ")
        + (f"{value:g}" if isinstance(value, float) else str(value))
        for (strategy, parameter), value in setting.items()
    )


def _is_of(point: GridPoint, contender: Contender) -> bool:
    return point.name.rpartition("-")[0] == contender.name


def _refuse_unlike(configs: Sequence[ExperimentConfig], files: Sequence[str]) -> None:
    """Methods are compared on one stream: the files may differ in name, strategies and what they measure."""

    def compared(config: ExperimentConfig) -> dict[str, Any]:
        return config.model_dump(mode="json", exclude={"name", "seed", "strategy", "evaluation"})

    for config, file in zip(configs[1:], files[1:], strict=True):
        if changes := differences(compared(configs[0]), compared(config)):
            raise UserError(
                f"{file} differs from {files[0]} in more than its strategies: {'; '.join(changes[:4])}. Methods are "
                "compared on one stream."
            )
    names = [config.name for config in configs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two of the experiments have the name '{twice[0]}'; give each its own.")
