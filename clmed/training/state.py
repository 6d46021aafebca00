"""What a checkpoint holds: the model, the optimizer, the strategies' states and the random state, taken and put back.

Tensors of a strategy that are shaped like the shards of a parameter are stored as shards of that parameter, so that
another number of ranks can read them; so are those that are sharded themselves, under the parameter's name
({"layer.weight": {"left": ...}}), which come back sharded as the parameter is.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from transformers import PreTrainedModel

from clmed.config import fingerprint
from clmed.results.manifest import MANIFEST
from clmed.shards import digest, local, shard_like
from clmed.training.sharding import World, on_all_ranks

TENSOR = "$tensor"  # marks, in a strategy's values, the place of a tensor


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
    with single_process_is_fine():
        dcp.load(tensors, checkpoint_id=path, no_dist=not dist.is_initialized())
    set_state_dict(
        model,
        optimizer if optimizer is not None else [],
        model_state_dict=model_state,
        optim_state_dict=optimizer_state,
    )
    for key, state in tensors.get("random", {}).items():
        torch.cuda.set_rng_state(state) if key.endswith("cuda") else torch.set_rng_state(state)
    return _put_tensors(values, parameters, held)


def restore_weights(path: Path, model: PreTrainedModel) -> None:
    """Load the weights alone of a checkpoint, saved by any number of ranks, or of a Hugging Face folder."""
    weights = get_model_state_dict(model)
    with single_process_is_fine():
        if (path / MANIFEST).exists():
            dcp.load({"model": weights}, checkpoint_id=path, no_dist=not dist.is_initialized())
        else:
            reader = dcp.HuggingFaceStorageReader(str(path))
            stored = reader.read_metadata().state_dict_metadata  # without the second name of tied weights
            weights = {name: tensor for name, tensor in weights.items() if name in stored}
            dcp.load(weights, storage_reader=reader, no_dist=not dist.is_initialized())
    set_model_state_dict(model, weights, options=StateDictOptions(strict=False))


def weights_fingerprint(model: PreTrainedModel, world: World) -> str:
    """16 hex digits for the architecture and every number in the model, each rank reading its shards;
    not the same for another number of ranks."""
    shape = {
        key: value
        for key, value in model.config.to_dict().items()
        if key not in ("_name_or_path", "transformers_version")
    }
    return fingerprint([on_all_ranks(world, lambda: digest(model)), str(shape)])


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
        path, dtype = value[TENSOR], getattr(torch, value["dtype"])
        like, owner = parameters.get(path.rpartition("/")[2]), _owner(path, parameters)
        if owner is not None:
            held[path] = shard_like(owner, torch.zeros(value["shape"], dtype=dtype, device=local(owner).device))
        elif isinstance(like, Tensor) and list(like.shape) == value["shape"]:
            held[path] = torch.zeros_like(like.detach(), dtype=dtype)
        else:
            held[path] = torch.zeros(value["shape"], dtype=dtype)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            _make_room(item, parameters, held)


def _put_tensors(value: Any, parameters: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> Any:
    """`value` with tensors where the marks were: local ones, but for those under a parameter's name."""
    if isinstance(value, Mapping):
        if TENSOR in value:
            tensor = held[value[TENSOR]]
            return local(tensor) if _owner(value[TENSOR], parameters) is None else tensor
        return {key: _put_tensors(item, parameters, held) for key, item in value.items()}
    return [_put_tensors(item, parameters, held) for item in value] if isinstance(value, list) else value


def _owner(path: str, parameters: Mapping[str, Tensor]) -> Tensor | None:
    """The parameter under whose name a tensor stands, as which it is sharded."""
    return parameters.get(path.rpartition("/")[0].rpartition("/")[2])


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def single_process_is_fine() -> Iterator[None]:
    """torch.distributed.checkpoint warns of it at every call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield
