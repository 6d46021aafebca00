"""What every pass over a live model beside its training needs, so that it leaves no trace, alone or on many ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers.modeling_layers import GradientCheckpointingLayer

Batch = TypeVar("Batch")
T = TypeVar("T")


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's mode is as found and every shard is live again.

    After a forward-only pass FSDP2 keeps the root group (embedding, norm, head) gathered, and an edit of its shards
    would be ignored: hence `reshard()`. `no_grad` and not `inference_mode`: FSDP2 gathers into buffers that it keeps,
    and made in inference mode they cannot take part in the next training step.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
            if isinstance(module, FSDPModule):
                module.reshard()


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for gradients, then training mode: activations are checkpointed where training checkpoints them.

    In evaluation mode transformers checkpoints nothing; and in training mode some of its blocks drop out themselves, so
    that it does not help to set the mode of these alone. What is checkpointed is `forward`, as there: FSDP2's hooks
    stay outside.
    """
    blocks: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    blocks = [block for block in blocks if block.gradient_checkpointing]
    model.eval()
    for block in blocks:
        block.forward = partial(block._gradient_checkpointing_func, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the one of its class is back
        model.train()


def world() -> tuple[int, int]:
    """This process's rank and the number of ranks: (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def deal(batches: Sequence[Batch], size: int) -> list[list[Batch]]:
    """Rounds of `size` batches, one for each rank.

    Sharded forwards are collective, so that every rank must make the same number of them: a last round that is short
    is filled with repeats of its first batch.
    """
    rounds = [list(batches[start : start + size]) for start in range(0, len(batches), size)]
    return [dealt + dealt[:1] * (size - len(dealt)) for dealt in rounds]


def gathered(found: T) -> list[T]:
    """What every rank found, by rank; on all ranks."""
    ranks = world()[1]
    every = [found] * ranks
    if ranks > 1:
        dist.all_gather_object(every, found)
    return every


def sum_over_ranks(values: np.ndarray, device: torch.device) -> np.ndarray:
    """The sum of every rank's float64 `values`, on all ranks."""
    if world()[1] == 1:
        return values
    tensor = torch.from_numpy(values).to(device)
    dist.all_reduce(tensor)
    return tensor.cpu().numpy()


def log_normalisers(logits: torch.Tensor, most: int = 1 << 26) -> torch.Tensor:
    """log Σ exp over the last dimension in fp32, some rows at a time: `most` bounds the elements of the copy."""
    rows = max(1, most // logits[0].numel())
    return torch.cat([part.float().logsumexp(-1) for part in logits.split(rows)])
