"""Loading a pretrained model straight into shards: no process ever holds the whole of it.

The model is made on the meta device (its buffers, such as rotary frequencies, for real), sharded there, and then every
rank reads from the memory-mapped files only the rows of each weight that are its own.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from clmed.config import ModelConfig, TrainingConfig
from clmed.shards import local, own_rows
from clmed.training.sharding import World, shard

FILES = ("model.safetensors", "pytorch_model.bin")
Weights = dict[str, Any]  # name -> what gives rows of it when indexed: a slice of safetensors, or a mapped tensor


class WholeOnlyError(Exception):
    """Why a model cannot be read in pieces."""


def load_sharded(model: ModelConfig, shape: Any, world: World, training: TrainingConfig) -> PreTrainedModel:
    """The model of configuration `shape` in fp32 shards on the mesh of `world`, equal to `from_pretrained` bit for bit.

    Raises WholeOnlyError where the files do not hold the model's weights by name; nothing is loaded then.
    """
    weights = open_weights(model, shape)
    with init_empty_weights(include_buffers=False):
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            shape, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=model.trust_remote_code
        )
    made.tie_weights()  # each of these makes two of a tied weight: init_empty_weights, and below _apply
    refuse_others(made, weights)
    shard(made, world, training)
    device = torch.device("cpu") if training.cpu_offload else world.device
    # As nn.Module.to_empty does, which would empty the buffers too; FSDP takes the new shards up there.
    made._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)
    made.tie_weights()
    fill(made, weights)
    with suppress(OSError):  # most have none
        made.generation_config = GenerationConfig.from_pretrained(str(model.path))
    return made.eval()


def open_weights(model: ModelConfig, shape: Any) -> Weights:
    """The weights of a folder or hub id, memory-mapped. Raises WholeOnlyError where there are none to be mapped."""
    if getattr(shape, "quantization_config", None) is not None:
        raise WholeOnlyError("its weights are quantised")
    weights: Weights = {}
    for file in _files(str(model.path)):
        try:
            if file.endswith(".safetensors"):
                opened = safe_open(file, framework="pt")
                weights |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            else:
                weights |= torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise WholeOnlyError(f"{Path(file).name}: {str(error).strip().splitlines()[0]}") from error
    return weights


def _files(path: str) -> list[str]:
    def find(name: str) -> str | None:
        return cached_file(
            path, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
        )

    for name in FILES:
        if file := find(name):
            return [file]
        if index := find(f"{name}.index.json"):
            return get_checkpoint_shard_files(path, index)[0]
    raise WholeOnlyError(f"there is no {' and no '.join(FILES)}")


def refuse_others(model: nn.Module, weights: Weights) -> None:
    """Raise WholeOnlyError unless every weight of the model is in the files, under its name and with its shape.

    Of names that are tied one is enough.
    """
    missing = {id(tensor): name for name, tensor in _stored(model).items() if name not in weights}
    for name, tensor in _stored(model).items():
        if name in weights:
            missing.pop(id(tensor), None)
            if (found := _shape(weights[name])) != list(tensor.shape):
                raise WholeOnlyError(f"{name} has the shape {found} instead of {list(tensor.shape)}")
    if missing:
        raise WholeOnlyError(f"its files do not hold {next(iter(missing.values()))} under this name")


@torch.no_grad()
def fill(model: nn.Module, weights: Weights) -> None:
    """Copy this rank's rows of every weight from the files."""
    # Of tied weights the files may hold one name or all: each is read once.
    for tensor, name in {tensor: name for name, tensor in _stored(model).items() if name in weights}.items():
        rows = own_rows(tensor)
        if rows.start < rows.stop:
            local(tensor).copy_(weights[name][rows])


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """What a file holds of a model, by name; tied weights under each of their names."""
    return model.state_dict(keep_vars=True)


def _shape(weight: Any) -> list[int]:
    shape: Callable[[], list[int]] | torch.Size = getattr(weight, "get_shape", None) or weight.shape
    return list(shape() if callable(shape) else shape)
