"""The ranks and what they share: this process among the others, and a model made into FSDP2 shards."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from clmed.config import TrainingConfig
from clmed.errors import LostRankError
from clmed.shards import decoder_blocks

# One rank makes the base model while the others wait for it.
PATIENCE = timedelta(hours=4)
# What Gloo's and NCCL's RuntimeErrors say of a connection.
_LOST = re.compile(r"(?i)gloo|nccl|connection (closed|reset|refused)|broken pipe")
T = TypeVar("T")

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


def await_base(world: World) -> None:
    """Wait until all ranks are here, the first of which may be making the base model."""
    if world.mesh is not None:
        patient: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        dist.barrier(group=patient)


@contextmanager
def lost_rank_told(world: World) -> Iterator[None]:
    """Raise LostRankError where a collective fails because another process has ended."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if world.ranks == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise LostRankError(
            f"process {world.rank} of {world.ranks} stops, because another one has ended: what ended that one is told "
            "above or in its own output (memory used up, killed, a machine lost). The same command goes on from the "
            "last checkpoint."
        ) from error


def first_rank_says(world: World, answer: T) -> T:
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


def on_all_ranks(world: World, work: Callable[[], T], group: dist.ProcessGroup | None = None) -> list[T]:
    """What the work gives on each rank; an OSError of any is raised on all, so that none waits for ever."""
    done: tuple[T | None, OSError | None]
    try:
        done = work(), None
    except OSError as error:
        done = None, error
    every = [done]
    if world.mesh is not None:
        every = [done] * world.ranks
        dist.all_gather_object(every, done, group=group)
    for _, failed in every:
        if failed is not None:
            raise failed
    return [found for found, _ in every]  # type: ignore[misc]


def on_first_rank(world: World, work: Callable[[], None], group: dist.ProcessGroup | None = None) -> None:
    """Do it on the first rank while the others wait; an OSError of it is raised on all."""
    on_all_ranks(world, work if world.main else lambda: None, group)


def shard(model: PreTrainedModel, world: World, training: TrainingConfig) -> PreTrainedModel:
    """Move `model` to the device and, where the world has a mesh, shard it: one FSDP2 group per decoder block.

    Parameters stay fp32 shards; `precision` is FSDP's policy for the gathered copies that compute. Gradients are
    reduced in fp32. Parameters on the meta device stay there, as shards to be filled (clmed/training/loading.py).
    """
    if training.activation_checkpointing:
        model.activation_checkpointing_enable()
    if world.mesh is None:
        return model._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(world.device))
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
