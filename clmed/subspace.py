"""The large singular directions of weight matrices that may be sharded: found one matrix at a time, and held."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clmed.shards import gather, local, reduce_sum, shard_like


@dataclass(frozen=True, kw_only=True)
class Directions:
    """The k largest singular directions of a matrix W (out, in) = U S V'.

    left: U (out, k), its rows sharded as those of W; right: S V' (k, in), its rows sharded as well.
    """

    left: Tensor
    right: Tensor

    @torch.no_grad()
    def hold(self, model: nn.Module, matrix: Tensor, *, as_found: bool) -> None:
        """Change the local rows of `matrix` so that U' matrix and matrix V are zero or, as_found, what they were of W.

        Nothing else of it changes: (I - U U') matrix (I - V V') stays. All ranks call it; one matrix V' is gathered.
        """
        left, right = local(self.left), gather(self.right)
        sizes = right.norm(dim=1).clamp_min(torch.finfo(right.dtype).tiny)
        unit = right / sizes[:, None]
        overlap = reduce_sum(model, left.T @ matrix)
        matrix.sub_(left @ (overlap - right if as_found else overlap))
        overlap = matrix @ unit.T
        matrix.sub_((overlap - left * sizes if as_found else overlap) @ unit)


@torch.no_grad()
def largest_directions(matrices: Mapping[str, Tensor], share: float) -> Iterator[tuple[str, Directions]]:
    """The largest `share` of the singular directions of each matrix, by name.

    The matrices are dealt to the ranks: each computes one while the others compute theirs, so no rank ever holds more
    than two whole ones.
    """
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    names = list(matrices)
    for first in range(0, len(names), ranks):
        dealt = names[first : first + ranks]
        own = None
        for owner, name in enumerate(dealt):
            whole = gather(matrices[name].detach())
            own = whole if owner == rank else own
        found = _largest(own, share) if own is not None else None
        for owner, name in enumerate(dealt):
            matrix = matrices[name]
            count = _count(matrix, share)
            if owner == rank and found is not None:
                left, right = found
            else:
                left, right = matrix.new_empty(0), matrix.new_empty(0)
            yield (
                name,
                Directions(
                    left=shard_like(matrix, _sent(left, (matrix.shape[0], count), matrix, owner)),
                    right=shard_like(matrix, _sent(right, (count, matrix.shape[1]), matrix, owner)),
                ),
            )


def _count(matrix: Tensor, share: float) -> int:
    return round(share * min(matrix.shape))


def _largest(whole: Tensor, share: float) -> tuple[Tensor, Tensor]:
    # In fp64: with fp32 the directions would be those of a matrix nearby, and what is protected only about so.
    left, sizes, right = torch.linalg.svd(whole.double(), full_matrices=False)
    count = _count(whole, share)
    found = left[:, :count], sizes[:count, None] * right[:count]
    # LAPACK leaves matrices by columns, and a broadcast sends memory as it lies.
    return found[0].to(whole.dtype).contiguous(), found[1].to(whole.dtype).contiguous()


def _sent(tensor: Tensor, shape: tuple[int, int], like: Tensor, owner: int) -> Tensor:
    """What rank `owner` has, on all ranks."""
    if not dist.is_initialized():
        return tensor
    there = tensor if tensor.numel() else torch.empty(shape, device=local(like).device)
    dist.broadcast(there, src=owner)
    return there
