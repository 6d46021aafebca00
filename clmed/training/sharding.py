"""The ranks and what they share: this process among the others, and a model made into FSDP2 shards."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from clmed.config import TrainingConfig
from clmed.errors import UserError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among the others; mesh is None where nothing is sharded."""

    rank: int = 0
    ranks: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)
    mesh: DeviceMesh | None = None

    @property
    def main(self) -> bool:
        """Whether this rank talks and writes."""
        return self.rank == 0


def first_rank_says(world: World, answer: bool) -> bool:
    """The first rank's answer, on all ranks: what each sees of a shared disk may differ while one of them writes."""
    answers = [answer]
    if world.mesh is not None:
        dist.broadcast_object_list(answers, src=0)
    return answers[0]


def any_rank(world: World, answer: bool) -> bool:
    """Whether any rank says yes, on all ranks."""
    yes = torch.tensor(float(answer), device=world.device)
    if world.mesh is not None:
        dist.all_reduce(yes)
    return bool(yes)


def on_first_rank(world: World, work: Callable[[], None]) -> None:
    """Do it on the first rank while the others wait; an OSError of it is raised on all, so that none waits for ever."""
    failed: list[OSError | None] = [None]
    if world.main:
        try:
            work()
        except OSError as error:
            failed = [error]
    if world.mesh is not None:
        dist.broadcast_object_list(failed, src=0)
    if failed[0] is not None:
        raise failed[0]


def shard(model: PreTrainedModel, world: World, training: TrainingConfig) -> PreTrainedModel:
    """Move `model` to the device and, where the world has a mesh, shard it: one FSDP2 group per decoder block.

    Parameters stay fp32 shards; `precision` is FSDP's policy for the gathered copies that compute. Gradients are
    reduced in fp32. Parameters on the meta device stay there, as shards to be filled (clmed/training/loading.py).
    """
    if training.activation_checkpointing:
        model.activation_checkpointing_enable()
    if world.mesh is None:
        return model.to(world.device)  # type: ignore[arg-type]
    precision = PRECISIONS[training.precision]
    offload = CPUOffloadPolicy(pin_memory=world.device.type == "cuda") if training.cpu_offload else OffloadPolicy()
    settings: dict[str, Any] = {
        "mesh": world.mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32 if precision else None),
        "offload_policy": offload,
    }
    for block in decoder_blocks(model):
        fully_shard(block, **settings)
    fully_shard(model, **settings)
    plain = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if plain:
        raise AssertionError(f"sharding left plain tensors behind: {plain[:3]}")
    return model


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks of a causal language model: its longest module list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UserError(
            f"{type(model).__name__} has no list of decoder blocks to shard; use one process without sharding."
        )
    return max(lists, key=len)
