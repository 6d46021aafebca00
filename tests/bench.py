"""Runs of tiny.yaml in this process that count the steps they really did, and what two of them must have in common."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clmed import experiment, validation
from clmed.results.rundir import RunDirectory
from clmed.training.trainer import ContinualTrainer
from tests.command import files, write_tiny

NOT_COMPARED = {"seconds", "train_seconds", "time", "tokens_per_second", "peak_memory", "taken_from"}


class Bench:
    """A folder with tiny.yaml; runs in this process, with the optimizer steps that each really did."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, 0
        self.by_experience: Counter[str] = Counter()

    def run(self, name: str, *overrides: str) -> RunDirectory:
        self.steps = 0
        settings = (f"name={name}", "training.share_experiences=true", *overrides)
        return experiment.run(validation.load(self.folder / "tiny.yaml", settings), self.folder / name)


@contextmanager
def benched(folder: Path) -> Iterator[Bench]:
    """A bench in `folder`, with a cache of its own."""
    bench = Bench(folder)
    write_tiny(bench.folder)
    step = ContinualTrainer._training_step

    def counted(trainer: ContinualTrainer, *arguments: Any, **keywords: Any) -> None:
        if trainer.checkpoints is not None:  # the making of the base has none
            bench.steps += 1
            bench.by_experience[trainer.experience.name] += 1
        step(trainer, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLMED_CACHE", str(bench.folder / "cache"))
        patch.setattr(ContinualTrainer, "_training_step", counted)
        yield bench


def comparable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in NOT_COMPARED} for row in rows]


def assert_same(one: RunDirectory, other: RunDirectory) -> None:
    assert comparable(one.results()) == comparable(other.results())
    assert comparable(one.training()) == comparable(other.training())
    assert files(one.model)["model.safetensors"] == files(other.model)["model.safetensors"]
    answers = [
        {name: content for name, content in files(run.path).items() if name.startswith("answers/")}
        for run in (one, other)
    ]
    assert answers[0] == answers[1] != {}
