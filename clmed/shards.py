"""The local shards of a model: read, copy, add to gradients, reduce. What strategies stand on.

Under FSDP2 every parameter is a DTensor of which this rank holds one shard; in one process a shard is the whole
parameter. Code written with these helpers is the same in both cases: it works on local tensors, in place, and
communicates only where a scalar has to be summed.

Read or edit shards only before a forward, after a backward, or after `model.reshard()`: between forward and backward,
and after a forward-only pass, FSDP computes with gathered copies and edits to the shards are ignored. (Every
measurement of clmed ends with `reshard()`.)
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from clmed.data.progress import followed
from clmed.errors import UserError


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of `tensor`, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shards(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, local shard) of each trainable parameter, detached: edits change the model, no graph is made.

    Raises TypeError for a plain tensor in a sharded model: it would silently differ between ranks.
    """
    sharded = _shard_group(model) is not None
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            if sharded and not isinstance(parameter, DTensor):
                raise TypeError(f"{name} is not sharded, though the rest of the model is")
            yield name, local(parameter.detach())


def gradients(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, local shard of the gradient) of each trainable parameter that has one; edits change the gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            yield name, local(parameter.grad)


def clone_shards(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the model's trainable shards, such as an anchor to return to."""
    return {name: shard.clone() for name, shard in shards(model)}


@contextmanager
def with_weights(model: nn.Module, other: Mapping[str, Tensor]) -> Iterator[None]:
    """Compute with other weights, forward only: a second model that costs no more than its shards, `other`.

    The numbers change places, tensor by tensor, and back at the end: bit for bit, in the same memory. In between the
    model must neither be trained nor saved.
    """
    _swap(model, other)
    try:
        yield
    finally:
        if isinstance(model, FSDPModule):
            model.reshard()  # its root stays gathered after a forward alone, and would keep the other weights
        _swap(model, other)


@torch.no_grad()
def _swap(model: nn.Module, other: Mapping[str, Tensor]) -> None:
    for name, shard in shards(model):
        own = shard.clone()
        shard.copy_(other[name])
        other[name].copy_(own)


def put_shards(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set the trainable shards to `values`, as `clone_shards` gave them."""
    for name, shard in shards(model):
        shard.copy_(values[name])


def blend_shards(model: nn.Module, anchor: Mapping[str, Tensor], alpha: float) -> None:
    """weight <- (1 - alpha) anchor + alpha weight, in place and without communication."""
    for name, shard in shards(model):
        shard.lerp_(anchor[name], 1 - alpha)


@torch.no_grad()
def add_to_gradients(
    model: nn.Module, anchor: Mapping[str, Tensor], strength: float, importance: Mapping[str, Tensor] | None = None
) -> None:
    """grad += strength * importance * (weight - anchor), in place: that of strength/2 * sum importance (w - a)^2.

    Each rank does its own shards, without communication; call it in `after_backward`, when gradients are reduced.
    importance: per weight, shaped like the anchor; None means 1.
    """
    weights = dict(shards(model))
    for name, gradient in gradients(model):
        distance = weights[name] - anchor[name]
        if importance is not None:
            distance *= importance[name]
        gradient.add_(distance, alpha=strength)


@torch.no_grad()
def quadratic_penalty(
    model: nn.Module, anchor: Mapping[str, Tensor], strength: float, importance: Mapping[str, Tensor] | None = None
) -> float:
    """strength/2 * sum importance (w - a)^2 over the whole model: the value whose gradient `add_to_gradients` adds."""
    total = torch.zeros((), dtype=torch.float64)
    for name, weight in shards(model):
        square = (weight - anchor[name]).square_()
        total += (square if importance is None else square.mul_(importance[name])).sum(dtype=torch.float64).cpu()
    return strength / 2 * reduce_sum(model, total).item()


def mean_squared_gradients(
    model: nn.Module, batches: Sequence[Any], set_gradient: Callable[[Any], None]
) -> dict[str, Tensor]:
    """The mean over `batches` of the squared gradient of each, as local shards: the diagonal of the empirical Fisher.

    set_gradient: sets the model's gradients to those of one batch. They are gone afterwards.
    """
    mean = {name: torch.zeros_like(shard) for name, shard in shards(model)}
    for batch in followed(batches, "finding which weights matter (Fisher information)"):
        set_gradient(batch)
        for name, gradient in gradients(model):
            mean[name].addcmul_(gradient, gradient, value=1 / len(batches))
    model.zero_grad()
    return mean


def inner_product(model: nn.Module, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The inner product of two vectors of the model's size, each given as local shards by name."""
    total = torch.zeros((), dtype=torch.float64)
    for name, shard in one.items():
        total += (shard * other[name]).sum(dtype=torch.float64).cpu()
    return reduce_sum(model, total).item()


def top_threshold(values: Tensor, parameter: Tensor, share: float) -> Tensor:
    """The smallest of the `share` largest values of a whole tensor (at least one); all ranks ask for it together.

    values: this rank's, shaped like its shard of `parameter`. One whole tensor at a time is gathered.
    """
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        values = DTensor.from_local(
            values, mesh, placements, shape=parameter.shape, stride=parameter.stride(), run_check=False
        ).full_tensor()
    count = max(1, int(share * values.numel()))
    return values.flatten().topk(count).values[-1]


def reduce_sum(model: nn.Module, value: Tensor) -> Tensor:
    """Sum a per-shard scalar over the ranks that hold the shards of one copy of the model.

    On a replicate x shard mesh that is the shard dimension alone: a sum over all ranks would count each copy.
    """
    group = _shard_group(model)
    if group is not None:
        dist.all_reduce(value, group=group)
    return value


def digest(model: nn.Module) -> str:
    """SHA-256, in hexadecimal, of this rank's shards of all parameters and buffers, with their names and shapes."""
    hashed = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(local(tensor.detach()).cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def gather(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, which all ranks must ask for together; a plain one is its own whole."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_rows(tensor: Tensor, rows: int | None = None) -> slice:
    """The rows of the whole that are in this rank's shard; FSDP cuts along dimension 0 like torch.chunk.

    rows: of another tensor, cut in the same way.
    """
    rows = len(tensor) if rows is None else rows
    if not isinstance(tensor, DTensor):
        return slice(0, rows)
    mesh = tensor.device_mesh
    dimension = next(i for i, placement in enumerate(tensor.placements) if isinstance(placement, Shard))
    size = -(-rows // mesh.size(dimension))
    first = min(mesh.get_local_rank(dimension) * size, rows)
    return slice(first, min(first + size, rows))


def shard_like(tensor: Tensor, whole: Tensor) -> Tensor:
    """This rank's shard of `whole`, which all ranks have, as a tensor sharded by rows as `tensor` is."""
    if not isinstance(tensor, DTensor):
        return whole
    own = whole[own_rows(tensor, len(whole))].clone()
    return DTensor.from_local(
        own, tensor.device_mesh, tensor.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks of a causal language model: its longest module list."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise UserError(
            f"{type(model).__name__} has no list of decoder blocks to shard; use one process without sharding."
        )
    return max(lists, key=len)


def computing_device(model: nn.Module) -> torch.device:
    """Where the model computes, and so wants its inputs: shards that are offloaded to host memory are elsewhere."""
    parameter = next(model.parameters())
    if isinstance(parameter, DTensor) and parameter.device_mesh.device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return parameter.device


def _shard_group(model: nn.Module) -> dist.ProcessGroup | None:
    """The process group over which the model's parameters are sharded, None where they are plain tensors."""
    for parameter in model.parameters():
        if isinstance(parameter, DTensor):
            mesh = parameter.device_mesh
            return mesh.get_group(mesh.ndim - 1)  # the shard dimension is the last of a hybrid mesh
    return None
