"""ContinualTrainer: Avalanche's callbacks around the training step of a language model.

One iteration is one optimizer step. Within it the rows arrive in micro-batches; gradients are summed over micro-batches
and ranks, so that the step's loss is the sum over all its rows of weight x summed token losses (clmed/data/batches.py).
Callbacks of one step, in order: before_training_iteration; per micro-batch before_forward, after_forward,
before_backward; then once, when gradients are final local shards, after_backward; before_update, after_update,
after_training_iteration; and only then, where one is due, a measurement.
"""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from avalanche.evaluation import PluginMetric
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import BaseSGDTemplate
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy, pad
from torch.optim import AdamW
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from clmed.config import ExperienceConfig
from clmed.data.batches import IGNORED, Batch, Batches, row_batch
from clmed.data.corpus import Corpus
from clmed.data.rows import Part
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import BenchmarkExperience, Experience
from clmed.training.schedule import learning_rate
from clmed.training.sharding import World


class DivergedError(UserError):
    """The loss or the gradient is no longer a number; the weights are those before the step."""


class ContinualTrainer(BaseSGDTemplate):
    """Trains a causal language model on a stream of experiences and measures it at every measurement point.

    model: already on its device, and sharded where `world` has a mesh.
    benchmarks: what is measured before the first experience, at milestones inside and after each.
    point, tokens, all_tokens: the number of the measurement point, domain tokens and all tokens trained so far.
    """

    model: PreTrainedModel
    experience: Experience | BenchmarkExperience | None

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        world: World,
        corpus: Corpus,
        strategies: Sequence[Strategy] = (),
        watchers: Sequence[Any] = (),
        metrics: Sequence[PluginMetric] = (),
        loggers: Sequence[BaseLogger] = (),
        benchmarks: Iterable[Any] = (),
    ) -> None:
        super().__init__(
            model=model,
            optimizer=None,  # made at each experience's start
            device=world.device,
            plugins=[*strategies, *watchers],
            # The idle logger keeps Avalanche from warning that there is none; loggers belong to the first rank.
            evaluator=EvaluationPlugin(*metrics, loggers=[*loggers, BaseLogger()] if world.main else []),
        )
        self.world, self.corpus, self.benchmarks = world, corpus, list(benchmarks)
        self.point = 0
        self.tokens = self.all_tokens = self.bytes = 0
        self.flops = 0.0
        self.flops_per_token = 6.0 * sum(parameter.numel() for parameter in model.parameters())
        self.log: dict[str, float] = {}  # what the watchers write after each step; strategies may add to it
        self.is_last_experience = False
        self.measured_experience, self.measured_final = "", False

    # ------------------------------------------------------------------ the stream

    def train(self, experiences: Iterable[Experience], **kwargs: Any) -> None:
        """Train on the experiences in order and measure at every point (the base model is measured first)."""
        stream = list(experiences)
        self.is_training, self._stop_training = True, False
        self.model.train()
        if self.benchmarks:
            self.measure(experience="base", final=True)
        self._before_training(**kwargs)
        for experience in stream:
            self.experience, self.is_last_experience = experience, experience is stream[-1]
            self._before_training_exp(**kwargs)
            self._train_exp(experience, [], **kwargs)
            self._after_training_exp(**kwargs)
            if self.benchmarks:
                self.measure(experience=experience.name, final=True)
        self._after_training(**kwargs)
        self._train_cleanup()

    def measure(self, *, experience: str, final: bool) -> None:
        """Measure every benchmark as measurement point `self.point`."""
        self.measured_experience, self.measured_final = experience, final
        for stream in self.benchmarks:
            self.eval(stream)
        self.point += 1

    # ------------------------------------------------------------------ one experience

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """The experience's rows are already mixed by the strategies."""
        self.adapted_dataset = self._training_experience.dataset

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """One item is the micro-batches of one optimizer step, in the order of the mixture."""
        batches = self._training_experience.batches
        self.dataloader = DataLoader(batches, batch_size=None, pin_memory=self.device.type == "cuda")
        self.domain_tokens = batches.trained(domain_only=True)
        self.totals = {of: batches.trained(of=of) for of in ("tokens", "bytes")}

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """A new optimizer for each experience."""
        self.model = self.model_adaptation()
        self.make_optimizer()

    def model_adaptation(self, model: PreTrainedModel | None = None) -> PreTrainedModel:
        """The model stays as it is."""
        return self.model

    def make_optimizer(self, **kwargs: Any) -> None:
        """AdamW; norms and biases are not decayed."""
        settings = self._training_experience.config.optimizer
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)

    def training_epoch(self, **kwargs: Any) -> None:
        """All optimizer steps of the experience."""
        experience = self._training_experience
        start = (self.tokens, self.all_tokens, self.bytes)
        for step, window in enumerate(self.dataloader):
            if self._stop_training:
                break
            self._training_step(step, window, experience, **kwargs)
            self.tokens = start[0] + int(self.domain_tokens[step + 1])
            self.all_tokens = start[1] + int(self.totals["tokens"][step + 1])
            self.bytes = start[2] + int(self.totals["bytes"][step + 1])
            self._after_training_iteration(**kwargs)
            if step + 1 in experience.milestones and self.benchmarks:
                self.measure(experience=experience.name, final=False)

    # ------------------------------------------------------------------ one optimizer step

    def _training_step(self, step: int, window: list[Batch], experience: Experience, **kwargs: Any) -> None:
        self.log = {}
        self._before_training_iteration(**kwargs)
        lr = learning_rate(step, len(experience.batches), experience.config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        sums = torch.zeros(1 + len(experience.batches.mixture.sources), 2, device=self.device)
        for index, self.mbatch in enumerate(window):
            self._unpack_minibatch()
            self._sync_gradients(index == len(window) - 1)
            self._before_forward(**kwargs)
            self.mb_output = self.forward()
            self._after_forward(**kwargs)
            self.loss = self.criterion()
            self._before_backward(**kwargs)
            sums[0, 0] += self.loss.detach()
            self._add_source_losses(sums)
            # FSDP averages gradients over the ranks; the loss is a sum over them.
            self.loss = self.loss * self.world.ranks
            self.backward()
        self.flops += self.flops_per_token * window[0]["input_ids"].numel() * len(window) * self.world.ranks
        self._after_backward(**kwargs)
        if self.world.mesh is not None:
            dist.all_reduce(sums)
        norm = self._clip(experience.config.optimizer.clip)
        self._refuse_nan(step, sums[0, 0].item(), norm, experience.config)
        self.log |= {"loss": sums[0, 0].item(), "grad_norm": norm, "lr": lr}
        for name, (nats, count) in zip(experience.batches.mixture.sources, sums[1:].tolist(), strict=True):
            if count:
                self.log[f"loss/{name}"] = nats / count
        self._before_update(**kwargs)
        self.optimizer_step()
        self._after_update(**kwargs)

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
        """Sum over rows of weight x summed token losses (nats)."""
        assert self.mbatch is not None and self.mb_output is not None
        self.row_losses = row_losses(self.mb_output, self.mbatch["labels"])
        return (self.row_losses * self.mbatch["weight"]).sum()

    def _add_source_losses(self, sums: Tensor) -> None:
        assert self.mbatch is not None
        counts = (self.mbatch["labels"] != IGNORED).sum(dim=1).float()
        both = torch.stack([self.row_losses.detach(), counts], dim=1)
        sums[1:].index_add_(0, self.mbatch["source"], both)

    def _sync_gradients(self, last: bool) -> None:
        """Under FSDP gradients are reduced with the window's last micro-batch only."""
        if self.world.mesh is not None:
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]

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

    # ------------------------------------------------------------------ for strategies

    def sample_rows(self, sources: Sequence[str], *, part: Part, rows: int) -> list[Batch]:
        """At most `rows` rows of a part of several sources, the same on every rank, one row a batch.

        Each source gives its first rows (documents are in no order there) in proportion to its size.
        """
        found = {name: self.corpus.rows(name, part) for name in sources}
        everything = sum(map(len, found.values()))
        share = min(1.0, rows / everything)
        return [row_batch(r, i) for r in found.values() for i in range(math.ceil(len(r) * share))]

    def row_gradient(self, batch: Batch) -> None:
        """Set the gradient to that of one row's mean token loss, the same on every rank."""
        self.optimizer.zero_grad()
        self._sync_gradients(True)
        batch = {key: value.to(self.device) for key, value in batch.items()}
        output = self.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
        count = (batch["labels"] != IGNORED).sum().clamp(min=1)
        (row_losses(output.logits, batch["labels"]).sum() / count).backward()
        self.flops += self.flops_per_token * batch["input_ids"].numel() * self.world.ranks

    # ------------------------------------------------------------------ measuring

    def _before_eval_exp(self, **kwargs: Any) -> None:
        BaseTemplate._before_eval_exp(self, **kwargs)  # no data loader: a benchmark brings its own batches

    def _eval_exp(self, **kwargs: Any) -> None:
        assert isinstance(self.experience, BenchmarkExperience)
        self.mb_output = self.experience.measure(self.model)

    @property
    def _training_experience(self) -> Experience:
        assert isinstance(self.experience, Experience)
        return self.experience


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(rows,) summed next-token losses in nats, in fp32; labels are not shifted, as in Hugging Face's data."""
    targets = pad(labels[:, 1:], (0, 1), value=IGNORED)
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return losses.view_as(labels).sum(dim=1)


def seconds_per_token(model: PreTrainedModel, batches: Batches) -> float:
    """Time of a forward and backward of one micro-batch, per position; the second of two, as the first warms up."""
    device = next(model.parameters()).device
    inputs = {key: value.to(device) for key, value in batches[0][0].items()}
    for _ in range(2):
        start = time.perf_counter()
        output = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False)
        row_losses(output.logits, inputs["labels"]).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        model.zero_grad()
    return seconds / inputs["input_ids"].numel()
