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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from clmed.shards import local

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

    def __init__(self, folder: Path, *, main: bool, keep: int = 2) -> None:
        """main: whether this rank names, checks and removes."""
        self.folder, self.main, self.keep = folder, main, keep

    def save(self, name: str, tensors: dict[str, Any], values: Mapping[str, Any]) -> None:
        """Write a checkpoint: tensors (nested, DTensors or plain) by torch.distributed.checkpoint, values as JSON."""
        partial = self.folder / f".{name}.partial"
        if self.main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        _barrier()
        dcp.save(tensors, checkpoint_id=partial, no_dist=not dist.is_initialized())
        _barrier()
        if self.main:
            files = {path.name: [path.stat().st_size, _digest(path)] for path in sorted(partial.iterdir())}
            (partial / MANIFEST).write_text(json.dumps({"files": files, "values": values}))
            shutil.rmtree(self.folder / name, ignore_errors=True)
            partial.rename(self.folder / name)
            for old in self._all()[self.keep :]:
                shutil.rmtree(old)
        _barrier()

    def latest(self) -> Found | None:
        """The newest checkpoint that is as it was written; None if there is none."""
        found: list[Found | None] = [None]
        if self.main:
            for path in self._all():
                if problem := _damage(path):
                    log.warning("checkpoint %s is damaged (%s): going back to the one before it", path, problem)
                    continue
                found = [Found(path, json.loads((path / MANIFEST).read_text())["values"])]
                break
        if dist.is_initialized():
            dist.broadcast_object_list(found, src=0)
        return found[0]

    def _all(self) -> list[Path]:
        """Newest first; the names begin with a number that rises."""
        visible = [path for path in self.folder.glob("*") if path.is_dir() and (path / MANIFEST).exists()]
        return sorted(visible, key=lambda path: path.name, reverse=True)


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


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
