"""Processes and shards: who we are among the ranks, and a model made into FSDP2 shards, on CUDA and CPU alike."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from clmed.config import TrainingConfig
from clmed.errors import UserError

# One rank makes the base model while the others wait for it.
PATIENCE = timedelta(hours=4)


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


def start(training: TrainingConfig) -> World:
    """Join the ranks that torchrun or `accelerate launch` started (none: one process), as the configuration says.

    Raises UserError where the request cannot be met, rather than quietly doing something else.
    """
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available() if training.device == "auto" else training.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise UserError("training.device is cuda, but torch finds no CUDA device here. Use device: cpu or auto.")
    if training.sharding == "none" and ranks > 1:
        raise UserError(
            f"training.sharding is none, but {ranks} processes were started: use sharding: full, or one process."
        )
    if training.sharding == "none" and training.precision != "fp32":
        raise UserError(
            f"training.precision {training.precision} is FSDP's mixed precision: use sharding: full or auto."
        )
    set_threads(training.threads, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    sharded = training.sharding == "full" or ranks > 1 or training.precision != "fp32"
    if sharded and not dist.is_initialized():
        if "RANK" in os.environ:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        else:
            dist.init_process_group(
                "gloo" if not cuda else "cpu:gloo,cuda:nccl", store=dist.HashStore(), rank=0, world_size=1
            )
    if sharded and dist.get_world_size() != ranks:
        raise UserError(
            f"{ranks} processes were asked for, but {dist.get_world_size()} joined: check the launcher's settings."
        )
    mesh = init_device_mesh(device.type, (ranks,), mesh_dim_names=("shard",)) if sharded else None
    return World(rank=rank, ranks=ranks, device=device, mesh=mesh)


def first_rank_says(world: World, answer: bool) -> bool:
    """The first rank's answer, on all ranks: what each sees of a shared disk may differ while one of them writes."""
    answers = [answer]
    if world.mesh is not None:
        dist.broadcast_object_list(answers, src=0)
    return answers[0]


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


def set_threads(asked: int | None, processes: int) -> None:
    """As many torch threads as asked for, else each process its part of the machine's cores."""
    if asked is not None:
        torch.set_num_threads(asked)
    elif processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def shard(model: PreTrainedModel, world: World, training: TrainingConfig) -> PreTrainedModel:
    """Move `model` to the device and, where the world has a mesh, shard it: one FSDP2 group per decoder block.

    Parameters stay fp32 shards; `precision` is FSDP's policy for the gathered copies that compute. Gradients are
    reduced in fp32.
    """
    if training.activation_checkpointing:
        model.activation_checkpointing_enable()
    model.to(world.device)  # type: ignore[arg-type]
    if world.mesh is None:
        return model
    policy = MixedPrecisionPolicy()
    if training.precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in decoder_blocks(model):
        fully_shard(block, mesh=world.mesh, mp_policy=policy)
    fully_shard(model, mesh=world.mesh, mp_policy=policy)
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
