"""Starting: which process this is among the ranks, on which device, and whether it can do what is asked of it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from clmed.config import TrainingConfig
from clmed.errors import UserError
from clmed.training.sharding import World

# A process that is killed closes its connections, which ends the others' waiting at once; this is for one that hangs,
# or whose machine is gone. Rank 0 may be busy as long with what it does alone between two collectives.
TIMEOUT = timedelta(minutes=30)


@contextmanager
def joined(training: TrainingConfig) -> Iterator[World]:
    """This process among the ranks, as `start` has it; in the end its group and threads are as before.

    A notebook's process goes on, and its next run must begin as this one did.
    """
    threads = torch.get_num_threads()
    try:
        yield start(training)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(threads)


def start(training: TrainingConfig) -> World:
    """Join the ranks that torchrun, `accelerate launch` or srun started (none: one process), as configured.

    Raises UserError where the request cannot be met, rather than quietly doing something else.
    """
    refuse_lost_ranks(os.environ)
    ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available() if training.device == "auto" else training.device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise UserError("training.device is cuda, but torch finds no CUDA device here. Use device: cpu or auto.")
    if training.sharding == "none" and ranks > 1:
        raise UserError(
            f"training.sharding is none, but {ranks} processes were started: use sharding: full, or one process."
        )
    set_threads(training.threads, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"this is process {local_rank + 1} of its machine, which has {torch.cuda.device_count()} GPUs: start "
                "one process for each GPU."
            )
        refuse_unfit_gpu(torch.cuda.get_device_capability(device), torch.cuda.get_arch_list(), training.precision)
        torch.cuda.set_device(device)
    needed = training.precision != "fp32" or training.cpu_offload or training.shard_ranks is not None
    if not (training.sharding == "full" or ranks > 1 or needed):
        return World(rank=rank, ranks=ranks, device=device)
    if not dist.is_initialized():
        # The CPU's backend too: objects, offloaded shards and asynchronous checkpoints go over it.
        alone: dict[str, Any] = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT, **alone)
    if dist.get_world_size() != ranks:
        raise UserError(
            f"{ranks} processes were asked for, but {dist.get_world_size()} joined: check the launcher's settings."
        )
    return World(rank=rank, ranks=ranks, device=device, mesh=make_mesh(device.type, ranks, training.shard_ranks))


def make_mesh(device: str, ranks: int, shard_ranks: int | None) -> DeviceMesh:
    """All ranks in one dimension, `shard`; with `shard_ranks` in two, `replicate` x `shard`.

    Neighbouring ranks shard one copy, so that with as many shard ranks as a node has GPUs, parameters are gathered
    within the node and only gradients, once a step, cross the network.
    """
    if shard_ranks is None:
        return init_device_mesh(device, (ranks,), mesh_dim_names=("shard",))
    if ranks % shard_ranks:
        raise UserError(
            f"training.shard_ranks is {shard_ranks}, but {ranks} process{'es were' if ranks > 1 else ' was'} started: "
            f"start a multiple of {shard_ranks}, or leave shard_ranks out to shard over all."
        )
    return init_device_mesh(device, (ranks // shard_ranks, shard_ranks), mesh_dim_names=("replicate", "shard"))


def refuse_lost_ranks(environment: Mapping[str, str]) -> None:
    """Raise UserError if a launcher was asked for several processes and started one.

    `accelerate launch --cpu --num_processes 2` does: its launcher for one process leaves an address where ranks should
    meet, and no ranks.
    """
    if {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= environment.keys() and "RANK" not in environment:
        raise UserError(
            "accelerate launch was asked for several processes but started only one (with --cpu, and without "
            "--use_fsdp or --multi_gpu, it always does). Give it --use_fsdp instead of --cpu, which works without GPUs "
            "too, or use torchrun. (Should one process be meant: start clmed without accelerate.)"
        )


def refuse_unfit_gpu(capability: tuple[int, int], built_for: Sequence[str], precision: str) -> None:
    """Raise UserError if the installed torch has no code for this GPU, or the GPU no units for the precision.

    capability: (major, minor) of the device; built_for: such as ["sm_80", "sm_90a", "compute_90"]. Code for sm_80 runs
    on every 8.x from it on (with a letter only on that very one); compute_90 is compiled for whatever is newer.
    """
    major, minor = capability

    def runs(architecture: str) -> bool:
        kind, _, number = architecture.partition("_")
        digits = number.rstrip("af")
        its = int(digits[:-1]), int(digits[-1])
        if digits != number:
            return its == capability
        return its <= capability if kind == "compute" else its[0] == major and its[1] <= minor

    if built_for and not any(map(runs, built_for)):
        raise UserError(
            f"this GPU has compute capability {major}.{minor}, but the installed torch {torch.__version__} was built "
            f"for {', '.join(built_for)}. Install a build for it (https://pytorch.org, previous versions for older "
            "GPUs: a V100 is 7.0), or use device: cpu."
        )
    if precision == "bf16" and major < 8:
        raise UserError(
            f"training.precision is bf16, but this GPU (compute capability {major}.{minor}) has no units for it, from "
            "8.0 on they have. Use precision: fp16."
        )


def set_threads(asked: int | None, processes: int) -> None:
    """As many torch threads as asked for, else each process its part of the machine's cores."""
    if asked is not None:
        torch.set_num_threads(asked)
    elif processes > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
