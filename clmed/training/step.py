"""StepTrainer: one optimizer step of a language model, and what strategies may ask of it.

Rows arrive in micro-batches; gradients are summed over micro-batches and ranks, so that the step's loss is the sum over
all its rows of weight x summed token losses (clmed/data/batches.py). Callbacks of one step, in order:
before_training_iteration; per micro-batch before_forward, after_forward, before_backward; then once, when gradients are
final local shards, after_backward; before_update, after_update. Where gradients overflow fp16 the step is left out on
all ranks: no after_backward, before_update, after_update.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from clmed.config import ExperienceConfig
from clmed.data.batches import Batch
from clmed.data.corpus import Corpus
from clmed.data.packing import IGNORED
from clmed.strategy import Strategy
from clmed.stream import Experience
from clmed.training.flops import flops
from clmed.training.loss import row_losses
from clmed.training.precision import DivergedError, LossScaler
from clmed.training.schedule import learning_rate
from clmed.training.services import Services
from clmed.training.sharding import World


class StepTrainer(Services):
    """Trains a causal language model by one optimizer step.

    model: already on its device, and sharded where `world` has a mesh.
    scaler: of the loss, where the model computes in fp16.
    reduce_each: reduce the gradients of each micro-batch to shards, instead of their whole sum once a step.
    flops: of all that was computed so far, on all ranks.
    log: what the watchers write after each step; strategies may add to it.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        world: World,
        corpus: Corpus,
        scaler: LossScaler | None,
        reduce_each: bool,
        plugins: Sequence[Any],
        evaluator: EvaluationPlugin,
    ) -> None:
        super().__init__(model=model, optimizer=None, device=world.device, plugins=[*plugins], evaluator=evaluator)
        self.world, self.corpus, self.scaler, self.reduce_each = world, corpus, scaler, reduce_each
        self.flops = 0.0
        self.forward_flops_per_token, self.flops_per_token = flops(model, corpus.length)
        self.log: dict[str, float] = {}
        self.stop_asked = self.stop_agreed = False  # of this rank, and of all

    def _training_step(self, step: int, window: list[Batch], experience: Experience, **kwargs: Any) -> None:
        self.log = {}
        self._before_training_iteration(**kwargs)
        lr = learning_rate(step, len(experience.batches), experience.config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        sources = experience.batches.mixture.sources
        sums = torch.zeros(1 + len(sources), 4, device=self.device)  # the step's, then each source's
        for index, self.mbatch in enumerate(window):
            self._unpack_minibatch()
            self._sync_gradients(index == len(window) - 1)
            self._before_forward(**kwargs)
            self.mb_output = self.forward()
            self._after_forward(**kwargs)
            self.loss = self.criterion()
            self._add_source_losses(sums)
            self._before_backward(**kwargs)
            sums[0, 0] += self.loss.detach()
            # FSDP averages gradients over the ranks; the loss is a sum over them.
            self.loss = self.loss * self.world.ranks * self._scale
            self.backward()
        self.flops += self.flops_per_token * window[0]["input_ids"].numel() * len(window) * self.world.ranks
        # One rank that is asked to stop, or could not save, stops all, and one with an overflow makes all skip: at the
        # same step.
        sums[0, 1:3] = torch.tensor([self._wants_to_stop(), self._unscale()])
        if self.world.mesh is not None:
            dist.all_reduce(sums)
        self.stop_agreed = bool(sums[0, 1] > 0)
        self._log_losses(sources, sums, lr)
        if self._skips(overflow=bool(sums[0, 2] > 0)):
            return
        self._after_backward(**kwargs)
        norm = self._clip(experience.config.optimizer.clip)
        self._refuse_nan(step, sums[0, 0].item(), norm, experience.config)
        self.log["grad_norm"] = norm
        self._before_update(**kwargs)
        self.optimizer_step()
        self._after_update(**kwargs)

    def _after_backward(self, **kwargs: Any) -> None:
        super()._after_backward(**kwargs)
        for strategy in self._strategies:
            strategy.confine_gradients(self)

    def _after_update(self, **kwargs: Any) -> None:
        for strategy in self._strategies:
            strategy.confine_weights(self)
        super()._after_update(**kwargs)

    @property
    def _strategies(self) -> list[Strategy]:
        return [plugin for plugin in self.plugins if isinstance(plugin, Strategy)]

    def _wants_to_stop(self) -> bool:
        """Whether this rank must not train on after this step."""
        return self.stop_asked

    def _unpack_minibatch(self) -> None:
        assert self.mbatch is not None
        self.mbatch = {key: value.to(self.device, non_blocking=True) for key, value in self.mbatch.items()}

    def forward(self) -> Tensor:
        """Logits (micro, length, vocabulary). No attention mask: with restarting position ids transformers keeps packed
        documents apart, and any mask or cache given would silently join them."""
        assert self.mbatch is not None
        return self.model(
            input_ids=self.mbatch["input_ids"], position_ids=self.mbatch["position_ids"], use_cache=False
        ).logits

    def criterion(self) -> Tensor:
        """Sum over rows of weight x weighted token losses (nats)."""
        assert self.mbatch is not None and self.mb_output is not None
        self.row_losses = row_losses(self.mb_output, self.mbatch["labels"], self.mbatch["weights"])
        return (self.row_losses * self.mbatch["weight"]).sum()

    def _add_source_losses(self, sums: Tensor) -> None:
        assert self.mbatch is not None
        counts = (self.mbatch["labels"] != IGNORED).sum(dim=1).float()
        mass = self.mbatch["weights"].sum(dim=1)
        columns = torch.stack([self.row_losses.detach(), counts, mass, self.mbatch["weight"] * mass], dim=1)
        sums[1:].index_add_(0, self.mbatch["source"], columns)

    def _log_losses(self, sources: Sequence[str], sums: Tensor, lr: float) -> None:
        """The step's loss; and each source's mean loss, supervised tokens and share of the step's loss."""
        self.log |= {"loss": sums[0, 0].item(), "lr": lr}
        for name, (nats, supervised, mass, weight) in zip(sources, sums[1:].tolist(), strict=True):
            if supervised:
                self.log |= {
                    f"loss/{name}": nats / mass,
                    f"supervised/{name}": supervised,
                    f"share/{name}": weight,
                }

    def _skips(self, overflow: bool) -> bool:
        """Whether this step is left out, on all ranks; what the next one's loss is scaled by is settled here."""
        if self.scaler is None:
            return False
        self.log |= {"loss_scale": self.scaler.scale, "overflow": float(overflow)}
        self.scaler.update(overflow)
        return overflow

    def _clip(self, limit: float) -> float:
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()

    def _refuse_nan(self, step: int, loss: float, norm: float, config: ExperienceConfig) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"Experience {config.name!r}, step {step + 1}: the loss is {loss} and the gradient norm {norm}, so "
                f"training stops before this step changes the weights. A lower learning rate (now "
                f"{config.optimizer.lr:g}) or a longer warm-up usually helps."
            )
