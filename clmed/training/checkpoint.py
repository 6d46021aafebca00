"""Checkpoints of a run: sharded, atomic, verified; a run that goes on from one ends with the weights it would have had.

A checkpoint is one folder written by torch.distributed.checkpoint, each rank its own shards, with a manifest of
checksums (clmed/results/manifest.py). It is written under a hidden name and renamed when all ranks have finished, so a
folder with a visible name is whole; what happens to it later (a truncated or flipped file) shows in the checksums, and
the one before it is used.

Asynchronously, which is the default, training stops only while the state is copied into the host's memory; a thread
writes the copy. A thread and not a process: what it does (copying, hashing, writing) is done without Python's lock,
and a process would have to import torch first and hold a second copy. The ranks' threads talk over a process group of
their own, so that they never meet the collectives of training. The next save waits for the one before it, and an error
of the thread reaches training at the next step. Where the host has no room for the copy, saves are synchronous.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.storage import WriteResult
from torch.utils._pytree import tree_leaves

from clmed.errors import UserError
from clmed.results import manifest
from clmed.results.manifest import Digests
from clmed.results.rundir import disk_errors
from clmed.shards import local
from clmed.training.sharding import World, first_rank_says, on_all_ranks, on_first_rank
from clmed.training.state import single_process_is_fine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from; `values` as they were saved."""

    path: Path
    values: dict[str, Any]


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` stay, and those marked. All ranks call the same methods."""

    def __init__(self, folder: Path, *, world: World, keep: int = 2, asynchronous: bool = True) -> None:
        """The first rank of `world` names and removes; each writes its own shards and reads its part to verify."""
        self.folder, self.world, self.keep, self.asynchronous = folder, world, keep, asynchronous
        self._group: Any = dist.new_group(backend="gloo") if world.mesh is not None else None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._stager: DefaultStager | None = None
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the thread finish what it has begun; where all was well, what it could not do is an error."""
        try:
            self.wait()
        except Exception as also:
            if error is None:
                raise
            if also is not error:
                log.warning("%s", also)
        finally:
            self._writer.shutdown()

    def save(self, name: str, tensors: dict[str, Any], values: Mapping[str, Any], mark: bool = False) -> None:
        """Write a checkpoint: tensors (nested, DTensors or plain) by torch.distributed.checkpoint, values as JSON.

        It waits for the save before it. What is saved is the state at the time of the call, whenever it is written.
        mark: it stays when newer ones come.
        Raises UserError, on all ranks, when the files of any rank cannot be written (of this save or, asynchronously,
        the one before it); nothing is left of them then, and the checkpoints before stay as they are.
        """
        self.wait()
        text = json.dumps(values)
        if not self.asynchronous or not self._has_room(tensors):
            self._save(name, tensors, text, mark)
            return
        assert self._stager is not None
        staged: Any = self._stager.stage(tensors)
        self._pending = self._writer.submit(self._save, name, staged, text, mark)

    @property
    def failed(self) -> bool:
        """Whether `wait` would raise now; ranks see it at different times."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def wait(self) -> None:
        """Until what was saved is on the disk. Raises as `save` does, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except KeyboardInterrupt:
                self._pending = pending
                raise

    def latest(self) -> Found | None:
        """The newest checkpoint that is as it was written; None if there is none."""
        for path in first_rank_says(self.world, manifest.checkpoints(self.folder)):
            values, problem = verified(self.world, path)
            if not problem:
                return Found(path, values)
            if self.world.main:
                log.warning("checkpoint %s is damaged (%s): going back to the one before it", path, problem)
        return None

    def _has_room(self, tensors: dict[str, Any]) -> bool:
        """Whether the hosts of all ranks have memory for a copy, which is then kept for all saves."""
        if self._stager is None:
            here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            needed = sum(local(x).nbytes for x in tree_leaves(tensors) if isinstance(x, torch.Tensor))
            self.asynchronous = all(on_all_ranks(self.world, lambda: needed * here < free_memory()))
            cuda = self.world.device.type == "cuda"
            if not self.asynchronous:
                log.warning("checkpoints are saved synchronously: a copy of the state does not fit in host memory")
            self._stager = DefaultStager(
                StagingOptions(
                    use_pinned_memory=cuda, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=cuda
                )
            )
        return self.asynchronous

    def _save(self, name: str, tensors: dict[str, Any], values: str, mark: bool) -> None:
        partial = self.folder / f".{name}.partial"

        def make_room() -> None:
            for stale in self.folder.glob(".*.partial"):  # of a killed run
                shutil.rmtree(stale, ignore_errors=True)
            partial.mkdir(parents=True)

        def own_digests() -> Digests:
            own = [*partial.glob(f"__{self.world.rank}_*"), *([partial / ".metadata"] if self.world.main else [])]
            return {path.name: [path.stat().st_size, manifest.digest_of(path)] for path in sorted(own)}

        def finish() -> None:
            if mark:
                (partial / manifest.KEPT).touch()
            manifest.write(partial, {name: found for part in digests for name, found in part.items()}, values)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            partial.rename(self.folder / name)

        try:
            on_first_rank(self.world, make_room, self._group)
            _write(tensors, partial, self._group)  # returns, or raises, on all ranks when all have written
            digests = on_all_ranks(self.world, own_digests, self._group)
            on_first_rank(self.world, finish, self._group)
        except OSError as error:
            raise self._plainly(error, self.folder / name) from error
        finally:
            if self.world.main:
                shutil.rmtree(partial, ignore_errors=True)  # with room again for the status that tells why
        if self.world.main:
            for old in manifest.checkpoints(self.folder)[self.keep :]:
                if not (old / manifest.KEPT).exists():
                    shutil.rmtree(old, ignore_errors=True)  # what stays is tried again after the next one

    def _plainly(self, error: OSError, path: Path) -> UserError:
        """Why the checkpoint `path` could not be written, and from where the run can go on."""
        try:
            with disk_errors(path):
                raise error
        except UserError as known:
            reason = str(known)
        except OSError:
            reason = f"{path} cannot be written ({error.strerror or error})."
        before = manifest.checkpoints(self.folder)
        whence = f"goes on from {before[0].name}, which is intact" if before else "starts again: none came before it"
        return UserError(f"{reason} When that is mended, the same command {whence}.")


def verified(world: World, path: Path) -> tuple[dict[str, Any], str]:
    """The values of a checkpoint, and what is wrong with it; each rank reads its part of the files."""

    def own_part() -> tuple[dict[str, Any], str]:
        try:
            written = manifest.read(path)
        except ValueError as error:
            return {}, str(error)
        own = sorted(written.files)[world.rank :: world.ranks]
        return written.values, manifest.damage(path, {name: written.files[name] for name in own})

    found = on_all_ranks(world, own_part)
    return found[0][0], next((problem for _, problem in found if problem), "")


def refuse_damaged(world: World, weights: Path) -> None:
    """Raise UserError, on all ranks, for a checkpoint of another run that is not as it was written.

    The Hugging Face folder of a finished run has no checksums to compare with.
    """
    if (weights / manifest.MANIFEST).exists() and (problem := verified(world, weights)[1]):
        raise UserError(
            f"from: checkpoint {weights} is damaged ({problem}), so nothing can start there. Choose another point of "
            "that run, or run it again."
        )


def free_memory() -> float:
    """Bytes of this host's memory that are free, or would be if they were needed."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return float("inf")


class _Writer(dcp.FileSystemWriter):
    """Tells the system's errors as such: those that torch.save hides would lose their cause between the ranks."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:  # "unexpected pos" is all that torch.save says of a full disk
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from None
            raise


def _write(tensors: dict[str, Any], folder: Path, group: dist.ProcessGroup | None) -> None:
    """dcp.save; the OSError or the Ctrl-C of any rank is raised on all."""
    try:
        with single_process_is_fine():
            dcp.save(tensors, storage_writer=_Writer(folder), process_group=group, no_dist=group is None)
    except CheckpointException as error:
        for failure, _trace in error.failures.values():
            if isinstance(failure, OSError | KeyboardInterrupt):
                raise failure from None
        raise RuntimeError(f"{folder}: {error}") from error  # it is no Exception, which nobody expects
