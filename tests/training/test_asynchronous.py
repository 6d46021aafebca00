"""Asynchronous saves: training goes on while a thread writes, and hears of what the thread could not do."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem

from clmed.errors import UserError
from clmed.results import manifest
from clmed.training import checkpoint
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World
from tests.small import make_trainer, on_ranks, small_config

VALUES = {"place": {"tokens": 1}}


class Gate:
    """Holds the writing thread before it writes, until it is opened; then it writes, or fails with `error`."""

    def __init__(self, error: OSError | None = None) -> None:
        self.open, self.reached, self.error = threading.Event(), threading.Event(), error
        self.write: Callable[..., None] = checkpoint._write

    def __call__(self, *arguments: Any) -> None:
        self.reached.set()
        assert self.open.wait(120)
        if self.error is not None:
            raise self.error
        self.write(*arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(checkpoint, "_write", gate)
    yield gate
    gate.open.set()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[0-9]*"))


def test_training_goes_on_and_what_is_saved_is_the_state_of_then(tmp_path: Path, gate: Gate) -> None:
    weights, values = torch.zeros(1000), {"place": {"tokens": 1}}
    with Checkpoints(tmp_path, world=World()) as checkpoints:
        checkpoints.save("00000001-0", {"weights": weights}, values)
        assert gate.reached.wait(120)
        assert visible(tmp_path) == [] and not checkpoints.failed
        weights.fill_(1)  # while the thread has written nothing yet
        values["place"]["tokens"] = 2
        gate.open.set()
        checkpoints.wait()
        checkpoints.save("00000002-0", {"weights": weights}, values)
    assert visible(tmp_path) == ["00000001-0", "00000002-0"]
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        found = {"weights": torch.empty(1000)}
        dcp.load(found, checkpoint_id=path, no_dist=True)
        assert (found["weights"] == number).all()
        assert manifest.read(path).values["place"]["tokens"] == number + 1


def test_a_second_save_waits_for_the_first(tmp_path: Path, gate: Gate) -> None:
    with Checkpoints(tmp_path, world=World()) as checkpoints:
        checkpoints.save("00000001-0", {"a": torch.ones(1)}, VALUES)
        assert gate.reached.wait(120)
        second = threading.Thread(target=checkpoints.save, args=("00000002-0", {"a": torch.ones(1)}, VALUES))
        second.start()
        second.join(0.2)
        assert second.is_alive() and visible(tmp_path) == []
        gate.open.set()
        second.join(120)
        assert not second.is_alive() and "00000001-0" in visible(tmp_path)
    assert visible(tmp_path) == ["00000001-0", "00000002-0"]


def test_what_is_being_written_is_finished_at_a_bad_end_too(tmp_path: Path, gate: Gate) -> None:
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path, world=World()) as checkpoints:
        checkpoints.save("00000001-0", {"a": torch.ones(1)}, VALUES)
        assert gate.reached.wait(120)
        gate.open.set()
        raise KeyboardInterrupt
    assert visible(tmp_path) == ["00000001-0"]


def test_an_error_does_not_hide_the_one_that_ended_the_run(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.error = OSError(errno.ENOSPC, "full")
    gate.open.set()
    with pytest.raises(KeyboardInterrupt), Checkpoints(tmp_path, world=World()) as checkpoints:
        checkpoints.save("00000001-0", {"a": torch.ones(1)}, VALUES)
        raise KeyboardInterrupt
    assert "00000001-0: the disk is full" in caplog.text and not list(tmp_path.iterdir())


def test_a_host_without_room_for_the_copy_saves_synchronously(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint, "free_memory", lambda: 3999.0)
    with Checkpoints(tmp_path, world=World()) as checkpoints:
        checkpoints.save("00000001-0", {"a": torch.ones(1000)}, VALUES)
        assert visible(tmp_path) == ["00000001-0"] and not checkpoints.asynchronous
        checkpoints.save("00000002-0", {"a": torch.ones(1)}, VALUES)
    assert caplog.text.count("does not fit in host memory") == 1


def test_free_memory_is_that_of_this_machine() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < checkpoint.free_memory() < total


def full(file: int) -> None:
    raise OSError(errno.ENOSPC, "full")


class FailedSave:
    """Opens the gate after the step that saved, and waits until the thread has failed."""

    supports_distributed = True

    def __init__(self, gate: Gate) -> None:
        self.gate, self.steps = gate, 0

    def after_training_iteration(self, trainer: Any, **_: Any) -> None:
        self.steps += 1
        if self.steps == 4:
            self.gate.open.set()
            while trainer.checkpoints._pending is not None and not trainer.checkpoints._pending.done():
                pass


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_stops_at_the_step_after_the_failure(
    ranks: int, tmp_path: Path, tokenizer: Any, make_model: Any
) -> None:
    """On all ranks at the same one, whichever rank it is whose disk is full."""

    def work(world: World) -> list[Any]:
        gate = Gate()
        watcher = FailedSave(gate)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "_write", gate)
            if world.rank == ranks - 1:
                patch.setattr(filesystem.os, "fsync", full)
            with Checkpoints(tmp_path / "run", world=world) as checkpoints:
                trainer = make_trainer(
                    small_config({}), make_model(1), tokenizer, world, checkpoints=checkpoints, save_every=3
                )
                trainer.plugins.insert(0, watcher)
                trainer.benchmarks = []
                with pytest.raises(UserError, match=r"00000003-0: the disk is full"):
                    trainer.train(trainer.stream)
        told = [watcher.steps] * ranks
        if world.mesh is not None:
            dist.all_gather_object(told, watcher.steps)
        return told

    told = on_ranks(2, work, tmp_path) if ranks == 2 else work(World())
    assert set(told) == {5} and visible(tmp_path / "run") == []
