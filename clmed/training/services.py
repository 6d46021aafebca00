"""Services: what a trainer does for strategies beyond its own step. All ranks call these together."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from avalanche.training.templates import BaseSGDTemplate
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from clmed.config import fingerprint
from clmed.data.batches import INPUTS, Batch, row_batch
from clmed.data.corpus import Corpus, Place, Rows, reservoir
from clmed.data.progress import followed
from clmed.data.rows import Part
from clmed.live import deal, measuring, sum_over_ranks, without_dropout
from clmed.logits import KIND, Reference, coarse, predicting
from clmed.shards import mean_squared_gradients, shards, with_weights
from clmed.stream import Experience
from clmed.training.kept import keep
from clmed.training.loss import row_losses, sampled_labels
from clmed.training.precision import LossScaler
from clmed.training.sharding import World, any_rank
from clmed.training.state import weights_fingerprint


class Services(BaseSGDTemplate):
    """Samples of rows, losses added to a step's, gradients beside the step's, and what another model says."""

    model: PreTrainedModel
    optimizer: Any  # None before the first experience
    world: World
    corpus: Corpus
    scaler: LossScaler | None
    reduce_each: bool
    flops: float
    flops_per_token: float
    forward_flops_per_token: float
    loss: Any

    # ------------------------------------------------------------------ the step's loss

    def add_loss(self, values: Tensor) -> None:
        """In `before_backward`: add to the step's loss the mean over all its rows of `values`, one for each row here.

        values: (micro,). The mean is over all micro-batches and ranks, so the same for any number of them; rows that
        only fill up a micro-batch do not count.
        """
        assert self.mbatch is not None
        self.loss = self.loss + (values * self.mbatch["part"]).sum()

    def logits_with(self, weights: Mapping[str, Tensor]) -> Tensor:
        """In `before_forward`: (micro, length, vocabulary) logits of this micro-batch by other weights, given as local
        shards; without dropout."""
        assert self.mbatch is not None
        with with_weights(self.model, weights), measuring(self.model):
            logits: Tensor = self.forward()
        self._count_forward(self.mbatch["input_ids"].numel() * self.world.ranks)
        return logits

    # ------------------------------------------------------------------ gradients

    def sample_rows(self, sources: Sequence[str], *, part: Part, rows: int) -> list[Batch]:
        """A uniform sample of at most `rows` rows of a part of several sources, one row a batch.

        It is the same on every rank and for every run: what it is used for can be compared.
        """
        sample = reservoir({name: self.corpus.rows(name, part) for name in sources}, rows, seed=0)
        return [row_batch(sample, [index]) for index in range(len(sample))]

    def mean_losses(self, rows: Rows) -> np.ndarray:
        """(rows,) the (weighted) mean token loss in nats of each row, 0 for one without a loss; on every rank.

        Forward passes of the model as it is, without dropout, some rows each, which the ranks share.
        """
        assert isinstance(self.experience, Experience)
        size = self.experience.batches.micro
        batches = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        nats, rank = np.zeros(len(rows)), self.world.rank
        with measuring(self.model):
            for dealt in followed(deal(batches, self.world.ranks), "looking for what the model knows worst"):
                batch = {key: value.to(self.device) for key, value in row_batch(rows, dealt[rank]).items()}
                output = self.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
                if rank == 0 or dealt[rank] is not dealt[0]:  # not a repeat
                    nats[dealt[rank]] = row_losses(output.logits, batch["labels"], batch["weights"]).cpu().numpy()
        self._count_forward(self.corpus.length * len(rows))
        return sum_over_ranks(nats, self.device) / np.where(rows.mass > 0, rows.mass, 1)

    def row_gradient(self, batch: Batch, labels_seed: int | None = None) -> None:
        """Set the gradient to that of one row's (weighted) mean token loss, without dropout, the same on every rank.

        labels_seed: where given, the labels are drawn from the model's own distribution.
        """
        mass = batch["weights"].sum()
        weight = 1 / torch.where(mass > 0, mass, 1)
        self.window_gradient([{**batch, "weight": weight[None] / self.world.ranks}], labels_seed)

    def window_gradient(self, window: Sequence[Batch], labels_seed: int | None = None) -> None:
        """Set the gradient to that of a window's loss as in a step, without dropout; each rank has its micro-batches.

        The gradient is whole on return: reduced, and unscaled in fp16.
        """
        overflow = True
        with without_dropout(self.model):
            while overflow:  # fp16: until the scale is small enough for these rows
                self.optimizer.zero_grad()
                for index, batch in enumerate(window):
                    self._sync_gradients(index == len(window) - 1)
                    self._backward(batch, labels_seed)
                overflow = self.scaler is not None and any_rank(self.world, self._unscale())
                if overflow and self.scaler is not None:
                    self.scaler.update(overflow)
        self._count(window[0]["input_ids"].numel() * len(window) * self.world.ranks)

    def _backward(self, batch: Batch, labels_seed: int | None) -> None:
        batch = {key: value.to(self.device) for key, value in batch.items()}
        output = self.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
        labels = batch["labels"]
        if labels_seed is not None:
            labels = sampled_labels(output.logits.detach(), labels, labels_seed)
        losses = row_losses(output.logits, labels, batch["weights"]) * batch["weight"]
        (losses.sum() * self.world.ranks * self._scale).backward()  # FSDP averages gradients over the ranks

    def fisher(
        self, sources: Sequence[str], *, rows: int, labels: Literal["data", "model"], kept: bool
    ) -> dict[str, Tensor]:
        """The diagonal Fisher information of the model on a sample of `fisher` parts, as local shards.

        labels: the data's (the empirical Fisher) or drawn from the model. kept: in the cache, by the model's weights,
        which of them are trained, the rows and the settings, for other runs; FLOPs count the same whether it was there
        or not.
        """
        sample = self.sample_rows(sources, part="fisher", rows=rows)
        before, scaler = self.flops, None if self.scaler is None else self.scaler.state_dict()

        def set_gradient(index: int) -> None:
            self.row_gradient(sample[index], labels_seed=index if labels == "model" else None)

        def make() -> dict[str, Tensor]:
            found = mean_squared_gradients(self.model, range(len(sample)), set_gradient)
            if self.scaler is not None and scaler is not None:
                self.scaler.load_state_dict(scaler)  # as found: single rows overflow where a step does not
            return found

        if not kept:
            return make()
        trained = [name for name, _ in shards(self.model)]  # another run may freeze some
        folder, _ = keep(self.world, "fisher", [*self._made_by(), trained, _rows_fingerprint(sample), labels], make)
        found = load_file(folder / f"{self.world.rank}.safetensors")
        self.flops = before
        self._count(sum(batch["input_ids"].numel() for batch in sample) * self.world.ranks)
        return {name: found[name].to(shard.device) for name, shard in shards(self.model)}

    # ------------------------------------------------------------------ logits on disk

    def store_logits(
        self, places: Sequence[Place], *, top: int, temperature: float, rows: Mapping[str, Rows] | None = None
    ) -> Reference:
        """Keep on disk what the model says now of these (source, row) (see clmed/logits.py).

        rows: of the sources, where they are not their train parts.
        """
        batches = [row_batch((rows or {}).get(source) or self.corpus.rows(source), [row]) for source, row in places]
        before = self.flops
        settings = [top, temperature]

        def make() -> dict[str, Tensor]:
            found: list[tuple[Tensor, Tensor]] = []
            with measuring(self.model):
                for dealt in followed(deal(batches, self.world.ranks), "keeping what the model says (logits)"):
                    batch = {key: value.to(self.device) for key, value in dealt[self.world.rank].items()}
                    inputs = {key: batch[key] for key in ("input_ids", "position_ids")}
                    logits = self.model(**inputs, use_cache=False).logits
                    found.append(coarse(logits[predicting(batch["labels"])], top, temperature))
            ids, values = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
            own = len(range(self.world.rank, len(batches), self.world.ranks))  # what follows are repeats
            ends = torch.tensor([len(i) for i, _ in found]).cumsum(0)[:own]
            last = int(ends[-1]) if own else 0
            return {"ids": ids[:last], "values": values[:last], "ends": ends}

        folder, files = keep(self.world, KIND, [*self._made_by(), _rows_fingerprint(batches), settings], make)
        self.flops = before
        self._count_forward(sum(batch["input_ids"].numel() for batch in batches))
        return {"key": folder.name, "files": files, "places": list(places)}

    def _made_by(self) -> list[Any]:
        """What tells this model from any other, and how it computes."""
        with measuring(self.model):
            probe = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
            computes_in = self.model(input_ids=probe, use_cache=False).logits.dtype
        return [weights_fingerprint(self.model, self.world), str(computes_in)]

    # ------------------------------------------------------------------ what a step needs, too

    def _sync_gradients(self, last: bool) -> None:
        """Under FSDP: whether this micro-batch's gradients are reduced; copies of the model meet with the last only."""
        if self.world.mesh is not None:
            self.model.set_requires_gradient_sync(last or self.reduce_each)  # type: ignore[operator]
            self.model.set_requires_all_reduce(last)  # type: ignore[operator]

    @property
    def _scale(self) -> float:
        return 1.0 if self.scaler is None else self.scaler.scale

    def _unscale(self) -> bool:
        """Bring the gradients back to scale; whether one of this rank's overflowed."""
        return self.scaler is not None and self.scaler.unscale(self.model)

    def _count(self, tokens: float) -> None:
        """Tokens run forward and backward, by all ranks together."""
        self.flops += self.flops_per_token * tokens

    def _count_forward(self, tokens: float) -> None:
        """Tokens run forward alone."""
        self.flops += self.forward_flops_per_token * tokens


def _rows_fingerprint(batches: Sequence[Batch]) -> str:
    hashed = hashlib.sha256()
    for batch in batches:
        for key in INPUTS:
            hashed.update(np.ascontiguousarray(batch[key].numpy()).data)
    return fingerprint(hashed.hexdigest())
