"""Checkpoints of a run: sharded, atomic, verified; a run that goes on from one ends with the weights it would have had.

A checkpoint is one folder written by torch.distributed.checkpoint, each rank its own shards: the model, the optimizer,
the strategies' tensors and every rank's random state. Beside them `manifest.json` holds the place in the stream, the
other values of the strategies, and the size and SHA-256 of every file. The folder is written under a hidden name and
renamed when all ranks have finished, so a folder with a visible name is whole; what happens to it later (a truncated or
flipped file) shows in the checksums, and the one before it is used.

Tensors of a strategy that are shaped like the shards of a parameter are stored as shards of that parameter, so that
another number of ranks can read them.
"""

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future
from torch.optim import Optimizer
from transformers import PreTrainedModel

from clmed.errors import UserError
from clmed.results.rundir import disk_errors
from clmed.shards import local
from clmed.training.sharding import World, on_first_rank

MANIFEST = "manifest.json"
TENSOR = "$tensor"  # marks, in a strategy's values, the place of a tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from; `values` as they were saved."""

    path: Path
    values: dict[str, Any]


class Checkpoints:
    """The checkpoints in one folder; the newest `keep` stay. All ranks call the same methods."""

    def __init__(self, folder: Path, *, world: World, keep: int = 2) -> None:
        """The first rank of `world` names, checks and removes; each writes its own shards."""
        self.folder, self.world, self.keep = folder, world, keep

    def save(self, name: str, tensors: dict[str, Any], values: Mapping[str, Any]) -> None:
        """Write a checkpoint: tensors (nested, DTensors or plain) by torch.distributed.checkpoint, values as JSON.

        Raises UserError, on all ranks, when the files of any rank cannot be written; nothing is left of them then, and
        the checkpoints before stay as they are.
        """
        partial = self.folder / f".{name}.partial"

        def make_room() -> None:
            for stale in self.folder.glob(".*.partial"):  # of a killed run
                shutil.rmtree(stale, ignore_errors=True)
            partial.mkdir(parents=True)

        def finish() -> None:
            files = {path.name: [path.stat().st_size, _digest(path)] for path in sorted(partial.iterdir())}
            (partial / MANIFEST).write_text(json.dumps({"files": files, "values": values}))
            shutil.rmtree(self.folder / name, ignore_errors=True)
            partial.rename(self.folder / name)

        try:
            on_first_rank(self.world, make_room)
            _write(tensors, partial)  # returns, or raises, on all ranks when all have written
            on_first_rank(self.world, finish)
        except OSError as error:
            raise self._plainly(error, self.folder / name) from error
        finally:
            if self.world.main:
                shutil.rmtree(partial, ignore_errors=True)  # with room again for the status that tells why
        if self.world.main:
            for old in self._all()[self.keep :]:
                shutil.rmtree(old, ignore_errors=True)  # what stays is tried again after the next one

    def latest(self) -> Found | None:
        """The newest checkpoint that is as it was written; None if there is none."""
        found: list[Found | None] = [None]
        if self.world.main:
            for path in self._all():
                if problem := _damage(path):
                    log.warning("checkpoint %s is damaged (%s): going back to the one before it", path, problem)
                    continue
                found = [Found(path, json.loads((path / MANIFEST).read_text())["values"])]
                break
        if self.world.mesh is not None:
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def _plainly(self, error: OSError, path: Path) -> UserError:
        """Why the checkpoint `path` could not be written, and from where the run can go on."""
        try:
            with disk_errors(path):
                raise error
        except UserError as known:
            reason = str(known)
        except OSError:
            reason = f"{path} cannot be written ({error.strerror or error})."
        before = self._all()
        whence = f"goes on from {before[0].name}, which is intact" if before else "starts again: none came before it"
        return UserError(f"{reason} When that is mended, the same command {whence}.")

    def _all(self) -> list[Path]:
        """Newest first; the names begin with a number that rises."""
        visible = [path for path in self.folder.glob("*") if path.is_dir() and (path / MANIFEST).exists()]
        return sorted(visible, key=lambda path: path.name, reverse=True)


class _Writer(dcp.FileSystemWriter):
    """Tells the system's errors as such: those that torch.save hides would lose their cause between the ranks."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:  # "unexpected pos" is all that torch.save says of a full disk
            if isinstance(error.__context__, OSError | KeyboardInterrupt):
                raise error.__context__ from None
            raise


def _write(tensors: dict[str, Any], folder: Path) -> None:
    """dcp.save; the OSError or the Ctrl-C of any rank is raised on all."""
    try:
        with _single_process_is_fine():
            dcp.save(tensors, storage_writer=_Writer(folder), no_dist=not dist.is_initialized())
    except CheckpointException as error:
        for failure, _trace in error.failures.values():
            if isinstance(failure, OSError | KeyboardInterrupt):
                raise failure from None
        raise


@contextmanager
def _single_process_is_fine() -> Iterator[None]:
    """torch.distributed.checkpoint warns of it at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield


def collect(
    model: PreTrainedModel, optimizer: Optimizer | None, strategies: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[Any]]:
    """The tensors to save, and the strategies' states with their tensors replaced by marks.

    optimizer: None between experiences, where the next one starts with a new optimizer.
    """
    held: dict[str, Tensor] = {}
    values = _take_tensors(strategies, "", dict(model.named_parameters()), held)
    tensors: dict[str, Any] = {"strategies": held, "random": {str(_rank()): torch.get_rng_state()}}
    if torch.cuda.is_available():
        tensors["random"][f"{_rank()}.cuda"] = torch.cuda.get_rng_state()
    if optimizer is None:
        return tensors | {"model": get_state_dict(model, [])[0]}, values
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return tensors | {"model": model_state, "optimizer": optimizer_state}, values


def restore(path: Path, model: PreTrainedModel, optimizer: Optimizer | None, values: list[Any]) -> list[dict[str, Any]]:
    """Load what `collect` gave into model, optimizer and the random state; returns the strategies' states."""
    parameters = dict(model.named_parameters())
    held: dict[str, Tensor] = {}
    _make_room(values, parameters, held)
    model_state, optimizer_state = get_state_dict(model, optimizer if optimizer is not None else [])
    tensors: dict[str, Any] = {"model": model_state, "strategies": held}
    if optimizer is not None:
        tensors["optimizer"] = optimizer_state
    known = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    if f"random.{_rank()}" in known:  # another number of ranks may have fewer random states
        tensors["random"] = {str(_rank()): torch.get_rng_state()}
        if torch.cuda.is_available() and f"random.{_rank()}.cuda" in known:
            tensors["random"][f"{_rank()}.cuda"] = torch.cuda.get_rng_state()
    with _single_process_is_fine():
        dcp.load(tensors, checkpoint_id=path, no_dist=not dist.is_initialized())
    set_state_dict(
        model,
        optimizer if optimizer is not None else [],
        model_state_dict=model_state,
        optim_state_dict=optimizer_state,
    )
    for key, state in tensors.get("random", {}).items():
        torch.cuda.set_rng_state(state) if key.endswith("cuda") else torch.set_rng_state(state)
    return _put_tensors(values, held)


def _take_tensors(value: Any, path: str, parameters: Mapping[str, Tensor], held: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors in `held` by their path; those like a parameter's shard as shards of it."""
    if isinstance(value, Tensor):
        name = path.rpartition("/")[2]
        like = parameters.get(name)
        if isinstance(like, DTensor) and value.shape == local(like).shape:
            value = DTensor.from_local(
                value, like.device_mesh, like.placements, shape=like.shape, stride=like.stride(), run_check=False
            )
        held[path] = value
        return {TENSOR: path, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {key: _take_tensors(item, f"{path}/{key}", parameters, held) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_tensors(item, f"{path}/{index}", parameters, held) for index, item in enumerate(value)]
    return value


def _make_room(value: Any, parameters: Mapping[str, Tensor], held: dict[str, Tensor]) -> None:
    """Empty tensors for all marks in `value`, shaped and sharded as they will be here."""
    if isinstance(value, Mapping) and TENSOR in value:
        like, dtype = parameters.get(value[TENSOR].rpartition("/")[2]), getattr(torch, value["dtype"])
        if isinstance(like, Tensor) and list(like.shape) == value["shape"]:
            held[value[TENSOR]] = torch.zeros_like(like.detach(), dtype=dtype)
        else:
            held[value[TENSOR]] = torch.zeros(value["shape"], dtype=dtype)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            _make_room(item, parameters, held)


def _put_tensors(value: Any, held: Mapping[str, Tensor]) -> Any:
    """`value` with local tensors where the marks were."""
    if isinstance(value, Mapping):
        if TENSOR in value:
            return local(held[value[TENSOR]])
        return {key: _put_tensors(item, held) for key, item in value.items()}
    return [_put_tensors(item, held) for item in value] if isinstance(value, list) else value


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint's files; empty if nothing is."""
    try:
        files = json.loads((path / MANIFEST).read_text())["files"]
        for name, (size, digest) in files.items():
            if not (path / name).exists():
                return f"{name} is missing"
            if (path / name).stat().st_size != size:
                return f"{name} has {(path / name).stat().st_size} bytes instead of {size}"
            if _digest(path / name) != digest:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError) as error:
        return f"{MANIFEST}: {error}"
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0
