"""The micro-batches of every optimizer step, as one rank sees them.

A step's rows are dealt to (micro-batch, rank) slots in a fixed order, so the global batch is the same for any number of
ranks; slots that are left over hold empty rows without a loss. Each row carries its weight in the loss, which is
known without communication because the tokens' weights are: for a row of source s it is

    share_s * (rows of s in the step / rows of the step) / (rows of s in the experience / all its rows)
            / (mass of s in the whole step)

where the mass is the sum of the tokens' weights, which is their number unless an exam's answers weigh more than its
explanations (`answer_weight`). A step's loss is the sum over its rows of weight x weighted token losses: within a
source the weighted mean over its supervised tokens of the whole accumulation window on all ranks, between sources by
share. The two fractions make it so
over the experience whether a source has rows in every step or in one of ten; in a step with just its part they cancel.
Exam answers are a few per cent of their tokens; weighting sources by supervised tokens (`weighting: tokens`) would let
5 % of replayed text be most of the loss.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from clmed.data.corpus import Rows
from clmed.data.mixture import Mixture
from clmed.data.packing import IGNORED

Batch = dict[str, Tensor]
INPUTS = ("input_ids", "position_ids", "labels", "weights")


class Batches(Dataset):
    """Item t is the list of this rank's micro-batches of optimizer step t.

    A micro-batch holds input_ids, position_ids and labels (micro, length) int64, weights (micro, length) float32: the
    tokens' own, weight (micro,) float32: a row's weight in the loss, part (micro,) float32: one row's part of the
    step's rows (0 for an empty row), source (micro,) int64: its index in `mixture.sources`, and row (micro,) int64: its
    number in the source (-1 for an empty row).
    """

    def __init__(
        self,
        *,
        mixture: Mixture,
        rows: Mapping[str, Rows],
        weighting: str,
        micro_batch_size: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.mixture = mixture
        self.rows = [rows[name] for name in mixture.sources]
        self.weighting = weighting
        self.rank, self.ranks = rank, ranks
        largest = int(mixture.counts.sum(axis=1).max())
        self.micro = min(micro_batch_size, -(-largest // ranks))
        self.accumulation = -(-largest // (self.micro * ranks))

    def rows_of(self, names: Sequence[str]) -> dict[str, Rows]:
        """The rows of some of its sources, as they are trained: a curriculum leaves some of what the corpus has."""
        return {name: self.rows[self.mixture.sources.index(name)] for name in names}

    def fill(self, name: str, rows: Rows) -> None:
        """Put the rows of a source in the place of those that stood for them; their number was settled before."""
        if name not in self.mixture.sources:  # its share is nothing
            return
        source = self.mixture.sources.index(name)
        if len(rows) != self.mixture.sizes[source]:
            raise ValueError(f"{name} was to have {self.mixture.sizes[source]} rows and has {len(rows)}")
        self.rows[source] = rows

    def __len__(self) -> int:
        return self.mixture.steps

    def __getitem__(self, t: int) -> list[Batch]:
        pairs = self.mixture.step(t)
        weights = self.weights(pairs)
        slots = np.arange(self.accumulation * self.ranks * self.micro).reshape(
            self.accumulation, self.ranks, self.micro
        )
        return [self._batch(pairs, weights, mine) for mine in slots[:, self.rank]]

    def weights(self, pairs: list[tuple[int, int]]) -> np.ndarray:
        """(rows of the step,) each row's weight: what a token's own weight is multiplied by."""
        source = np.array([s for s, _ in pairs])
        mass = np.array([self.rows[s].mass[row] for s, row in pairs], dtype=np.float64)
        if self.weighting == "tokens":
            return np.full(len(pairs), 1 / (mass.sum() or 1))
        totals = np.bincount(source, mass, minlength=len(self.rows))
        totals[totals == 0] = 1  # no rows here, or none with a loss
        here = np.bincount(source, minlength=len(self.rows)) / len(pairs)
        overall = self.mixture.counts.sum(axis=0) / self.mixture.counts.sum()
        return (self.mixture.shares * here / overall / totals)[source]

    def _batch(self, pairs: list[tuple[int, int]], weights: np.ndarray, slots: np.ndarray) -> Batch:
        mine = [slot for slot in slots if slot < len(pairs)]
        length = len(self.rows[0].data[0]["input_ids"])
        batch = {
            "input_ids": torch.zeros((self.micro, length), dtype=torch.int64),
            "position_ids": torch.arange(length).repeat(self.micro, 1),
            "labels": torch.full((self.micro, length), IGNORED, dtype=torch.int64),
            "weights": torch.zeros((self.micro, length)),
            "weight": torch.zeros(self.micro),
            "part": torch.zeros(self.micro),
            "source": torch.zeros(self.micro, dtype=torch.int64),
            "row": torch.full((self.micro,), -1),
        }
        for source in {pairs[slot][0] for slot in mine}:
            places = [place for place, slot in enumerate(mine) if pairs[slot][0] == source]
            found = self.rows[source].data[[pairs[mine[place]][1] for place in places]]
            for key in INPUTS:
                batch[key][places] = torch.from_numpy(np.asarray(found[key])).to(batch[key].dtype)
            batch["source"][places] = source
        batch["row"][: len(mine)] = torch.tensor([pairs[slot][1] for slot in mine], dtype=torch.int64)
        batch["part"][: len(mine)] = 1 / len(pairs)
        batch["weight"][: len(mine)] = torch.from_numpy(weights[mine]).float()
        return batch

    def beside(self, rows: Rows, per_step: int) -> "Batches":
        """As many steps, each of `per_step` rows of another source, pass after pass in a fresh order."""
        mixture = Mixture(
            sources=("beside",),
            counts=np.full((len(self), 1), per_step),
            shares=np.ones(1),
            sizes=(len(rows),),
            domain=(False,),
            seed=self.mixture.seed,
        )
        return Batches(
            mixture=mixture,
            rows={"beside": rows},
            weighting=self.weighting,
            micro_batch_size=self.micro,
            rank=self.rank,
            ranks=self.ranks,
        )

    def trained(self, *, domain_only: bool = False, of: str = "tokens") -> np.ndarray:
        """(steps + 1,) tokens (or `bytes`, or `supervised`) trained before step t, of all sources or the domain's."""
        total = np.zeros(self.mixture.steps + 1, dtype=np.int64)
        for index, rows in enumerate(self.rows):
            if self.mixture.domain[index] or not domain_only:
                amounts = getattr(rows, of)[self.mixture.order(index)].astype(np.int64)
                total += np.concatenate([[0], np.cumsum(amounts)])[self.mixture.before[:, index]]
        return total


def row_batch(rows: Rows, indices: Sequence[int]) -> Batch:
    """Some rows as a batch: input_ids, position_ids and labels (rows, length) int64, weights (rows, length)."""
    found = rows.data[[*indices]]
    found = {key: torch.from_numpy(np.asarray(value)) for key, value in found.items() if key in INPUTS}
    return {key: value if key == "weights" else value.long() for key, value in found.items()}
