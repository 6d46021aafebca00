"""A checkpoint that cannot be written leaves nothing, the one before it, and one paragraph on every rank."""

import errno
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import filesystem

from clmed.errors import UserError
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World
from tests.small import on_ranks

SIZE = 50_000  # numbers of 4 bytes that each rank writes
VALUES = {"place": {"tokens": 1}}
ALONE = World()


def save(folder: Path, name: str, world: World = ALONE, asynchronous: bool = False) -> None:
    with Checkpoints(folder, world=world, asynchronous=asynchronous) as checkpoints:
        checkpoints.save(name, {f"rank{world.rank}": torch.arange(SIZE)}, VALUES)


def fails(error: BaseException) -> Callable[..., Any]:
    """A stand-in for a function of the system that raises `error`."""

    def function(*_: object, **__: object) -> None:
        raise error

    return function


def fail_while_writing(patch: pytest.MonkeyPatch, failure: BaseException) -> None:
    """torch.save gets a file that takes some bytes and then fails."""

    class Stream(filesystem.io.BufferedWriter):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > SIZE:
                raise failure
            return super().write(data)

    class System(filesystem.FileSystem):
        @filesystem.contextmanager
        def create_stream(self, path: Any, mode: str) -> Iterator[Any]:
            if mode == "rb" or ".metadata" in str(path):
                with super().create_stream(path, mode) as stream:
                    yield stream
            else:
                with Stream(filesystem.io.FileIO(path, mode)) as stream:
                    yield stream

    patch.setattr(filesystem, "FileSystem", System)


def full_while_writing(patch: pytest.MonkeyPatch) -> None:
    fail_while_writing(patch, OSError(errno.ENOSPC, "full"))


def full_at_the_metadata(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(filesystem.pickle, "dump", fails(OSError(errno.ENOSPC, "full")))


def full_at_the_rename(patch: pytest.MonkeyPatch) -> None:
    rename = Path.rename
    enospc = fails(OSError(errno.ENOSPC, "full"))
    patch.setattr(Path, "rename", lambda path, to: (enospc if path.name.endswith(".partial") else rename)(path, to))


def full_at_the_manifest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "write_text", fails(OSError(errno.EDQUOT, "quota")))


def full_at_the_folder(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "mkdir", fails(OSError(errno.ENOSPC, "full")))


Full = Callable[[pytest.MonkeyPatch], None]
FULL: list[Full] = [
    full_while_writing,
    full_at_the_metadata,
    full_at_the_rename,
    full_at_the_manifest,
    full_at_the_folder,
]


def assert_only_the_first_is_left(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["00000001-0"]
    found = Checkpoints(folder, world=World()).latest()
    assert found is not None and found.path.name == "00000001-0" and found.values == VALUES


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("full", FULL)
def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: Full, asynchronous: bool
) -> None:
    save(tmp_path, "00000001-0")
    with monkeypatch.context() as patch, pytest.raises(UserError) as raised:
        full(patch)
        save(tmp_path, "00000002-0", ALONE, asynchronous)
    assert str(raised.value) == (
        f"{tmp_path}/00000002-0: the disk is full (or your quota is used up); free some space there. When that is "
        "mended, the same command goes on from 00000001-0, which is intact."
    )
    assert_only_the_first_is_left(tmp_path)
    save(tmp_path, "00000002-0")
    assert {path.name for path in tmp_path.iterdir()} == {"00000001-0", "00000002-0"}


def test_no_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_while_writing(monkeypatch)
    with pytest.raises(UserError, match="the same command starts again: none came before it"):
        save(tmp_path, "00000001-0")
    assert not list(tmp_path.iterdir())


def test_other_troubles_are_told_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "00000001-0")
    monkeypatch.setattr(filesystem.os, "fsync", fails(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(UserError, match=r"00000002-0 cannot be written \(Input/output error\)\. When that is mended"):
        save(tmp_path, "00000002-0")
    assert_only_the_first_is_left(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_ctrl_c_is_a_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    """Inside torch.save, and between its calls."""
    save(tmp_path, "00000001-0")
    if inside:
        fail_while_writing(monkeypatch, KeyboardInterrupt())
    else:
        monkeypatch.setattr(filesystem.os, "fsync", fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, "00000002-0")
    assert_only_the_first_is_left(tmp_path)


def test_a_real_full_disk(tmp_path: Path) -> None:
    mounted = ["mount", "-t", "tmpfs", "-o", "size=700k", "clmed-test", str(tmp_path)]
    if os.geteuid() or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        save(tmp_path, "00000001-0")
        with pytest.raises(UserError, match="00000002-0: the disk is full"):
            save(tmp_path, "00000002-0")
        assert_only_the_first_is_left(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".00000001-0.partial").mkdir(parents=True)
    save(tmp_path, "00000002-0")
    assert [path.name for path in tmp_path.iterdir()] == ["00000002-0"]


def test_saving_in_one_process_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(tmp_path, "00000001-0")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("full", "which"), [*((full, 0) for full in FULL), (full_while_writing, 1)])
def test_one_rank_without_space_ends_both(tmp_path: Path, full: Full, which: int, asynchronous: bool) -> None:
    """Neither waits for the other, and both say the same."""

    def work(world: World) -> list[str]:
        save(tmp_path / "run", "00000001-0", world)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as raised:
            if world.rank == which:
                full(patch)
            save(tmp_path / "run", "00000002-0", world, asynchronous)
        told = ["", ""]
        dist.all_gather_object(told, str(raised.value))
        return told

    told = on_ranks(2, work, tmp_path)
    assert told[0] == told[1] and "00000002-0: the disk is full" in told[0]
    assert_only_the_first_is_left(tmp_path / "run")
