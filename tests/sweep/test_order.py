"""What runs share is done by one of them first."""

from pathlib import Path
from typing import Any

import yaml

from clmed.config import ExperimentConfig
from clmed.results import manifest
from clmed.results.rundir import RunDirectory
from clmed.sweep.order import NOTHING, Doing, beginnings, reached, should_wait
from clmed.sweep.order import shared as alike_so_far
from tests.configs import BASE


def config(**changes: Any) -> ExperimentConfig:
    sections = yaml.safe_load(BASE.replace("1e-3", "1.0e-3").replace("2e-5", "2.0e-5")) | {"seed": 0}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            sections[section] = sections[section] | {name: value}
        else:
            sections[section] = value
    return ExperimentConfig.model_validate(sections)


def tuned(tokens: str) -> list[dict[str, Any]]:
    first, second = config().model_dump(mode="json")["stream"]
    return [first, second | {"tokens": tokens}]


def test_how_far_two_configurations_are_alike() -> None:
    one = config()
    assert shared(one, config(name="other", training__save_every=3, training__threads=2)) == 2
    assert shared(one, config(stream=tuned("1M"))) == 1
    assert shared(one, config(seed=1)) == 0, "the base's measurement"
    assert shared(one, config(strategy={"l2": {}})) == 0
    assert shared(one, config(evaluation__retention=[])) == NOTHING
    assert shared(one, config(training__precision="bf16")) == NOTHING
    alone = config(training__share_experiences=False)
    assert shared(alone, config(seed=1, training__share_experiences=False)) == 0, "a base that is made is made once"
    assert shared(alone, config(model={"path": "gpt2"}, training__share_experiences=False)) == NOTHING


def shared(one: ExperimentConfig, other: ExperimentConfig) -> int:
    return alike_so_far(beginnings(one), beginnings(other))


def checkpoint(run: RunDirectory, name: str, *, index: int, first_step: int = 0, kept: bool = True) -> None:
    folder = run.checkpoints / name
    folder.mkdir(parents=True)
    manifest.write(folder, {}, f'{{"place": {{"index": {index}, "first_step": {first_step}}}}}')
    if kept:
        (folder / manifest.KEPT).touch()


def test_how_far_a_run_is(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "name: run\n", {})
    assert reached(RunDirectory(tmp_path / "none")) == reached(run) == NOTHING
    run.add_training({"step": 1})
    assert reached(run) == 0, "the base is measured when the first step is done"
    checkpoint(run, "00000005-1", index=1, first_step=3)
    checkpoint(run, "00000006-1", index=1, kept=False)
    (run.checkpoints / "00000007-1").mkdir()
    assert reached(run) == 0, "inside an experience, not kept, damaged"
    checkpoint(run, "00000008-1", index=1)
    assert reached(run) == 1


def test_a_run_waits_for_what_another_is_doing_and_for_nothing_else() -> None:
    one, alike, other = (beginnings(each) for each in (config(), config(stream=tuned("1M")), config(seed=1)))

    def waits(known_by: tuple[str, ...], far: int) -> bool:
        return should_wait(known_by, [Doing(one, far)], [])

    assert waits(alike, NOTHING) and waits(other, NOTHING)
    assert waits(alike, 0) and not waits(other, 0)
    assert not waits(alike, 1)
    # What a finished run has done already need not be waited for.
    late = [Doing(beginnings(config(stream=tuned("2M"))), NOTHING)]
    assert should_wait(alike, late, []) and not should_wait(alike, late, [Doing(one, 2)])
    assert should_wait(alike, late, [Doing(other, 2)]), "which has the base alone"
    assert not should_wait(beginnings(config(evaluation__retention=[])), late, [])
    assert not should_wait(alike, [], [])
