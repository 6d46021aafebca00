"""ContinualTrainer: Avalanche's callbacks around the training step of a language model.

One iteration is one optimizer step. Within it the rows arrive in micro-batches; gradients are summed over micro-batches
and ranks, so that the step's loss is the sum over all its rows of weight x summed token losses (clmed/data/batches.py).
Callbacks of one step, in order: before_training_iteration; per micro-batch before_forward, after_forward,
before_backward; then once, when gradients are final local shards, after_backward; before_update, after_update,
after_training_iteration; and only then, where one is due, a measurement. Where gradients overflow fp16 the step is
left out on all ranks: no after_backward, before_update, after_update.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from avalanche.evaluation import PluginMetric
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import BaseSGDTemplate
from avalanche.training.templates.base import BaseTemplate
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from clmed.config import ExperienceConfig
from clmed.data.batches import Batch, row_batch
from clmed.data.corpus import Corpus, reservoir
from clmed.data.packing import IGNORED
from clmed.data.rows import Part
from clmed.errors import StoppedError
from clmed.results.start import Start
from clmed.strategy import Strategy
from clmed.stream import BenchmarkExperience, Experience
from clmed.training import resume
from clmed.training.checkpoint import Checkpoints, Found
from clmed.training.flops import flops_per_token
from clmed.training.loss import row_losses
from clmed.training.optimizer import carry_on, make_optimizer
from clmed.training.precision import DivergedError, LossScaler
from clmed.training.schedule import learning_rate
from clmed.training.sharding import World, any_rank, first_rank_says


class ContinualTrainer(BaseSGDTemplate):
    """Trains a causal language model on a stream of experiences and measures it at every measurement point.

    model: already on its device, and sharded where `world` has a mesh.
    benchmarks: what is measured before the first experience, at milestones inside and after each.
    checkpoints: where to save after every `save_every` steps, every experience and the steps that reach the domain
        tokens `keep_at`; None saves nothing. The last stay, and with `keep_ends` those of the experiences.
    scaler: of the loss, where the model computes in fp16.
    floors: says of a measurement point why the run must stop there, or nothing; asked on the first rank.
    point, tokens, all_tokens: the number of the measurement point, domain tokens and all tokens trained so far.
    """

    model: PreTrainedModel
    optimizer: Any  # None before the first experience
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
        checkpoints: Checkpoints | None = None,
        save_every: int = 500,
        scaler: LossScaler | None = None,
        keep_at: Sequence[int] = (),
        keep_ends: bool = False,
        floors: Callable[[int], str] | None = None,
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
        self.flops_per_token = flops_per_token(model, corpus.length)
        self.log: dict[str, float] = {}  # what the watchers write after each step; strategies may add to it
        self.is_last_experience = False
        self.measured_experience, self.measured_final = "", False
        self.checkpoints, self.save_every, self.scaler = checkpoints, save_every, scaler
        self.keep_at, self.keep_ends = keep_at, keep_ends
        self.train_seconds, self.since = 0.0, time.perf_counter()  # without measurements
        self.experiences: list[Experience] = []
        self.index = self.first_step = 0  # the place in the stream: experience, and its step to begin with
        self.stop_asked = self.stop_agreed = False
        self.floors, self.stop_reason = floors, ""

    # ------------------------------------------------------------------ the stream

    def train(
        self,
        experiences: Iterable[Experience],
        *,
        found: Found | None = None,
        start: Start | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on the experiences in order and measure at every point (the base model is measured first).

        found: a checkpoint to go on from; all that follows is as it would have been without the interruption.
        start: what is known of the model to start with, where it is not an unmeasured base.
        """
        self.experiences = stream = list(experiences)
        self.is_training, self._stop_training = True, False
        self.model.train()
        self.since = time.perf_counter()
        self._before_training(**kwargs)
        if found is not None:
            resume.go_on(self, stream, found)
        else:
            resume.begin(self, start)
        for experience in stream[self.index :]:
            self.experience, self.is_last_experience = experience, experience is stream[-1]
            if not self.first_step:
                self._before_training_exp(**kwargs)
            self._train_exp(experience, [], **kwargs)
            self._after_training_exp(**kwargs)
            if self.benchmarks:
                self.measure(experience=experience.name, final=True)
            self.index, self.first_step = self.index + 1, 0
            self.save(mark=self.keep_ends)
            if self.stop_reason:
                self._stop(self.stop_reason)
        if self.checkpoints is not None:
            self.checkpoints.wait()
        self._after_training(**kwargs)
        self._train_cleanup()

    def measure(self, *, experience: str, final: bool, known: Collection[str] = ()) -> None:
        """Measure every benchmark, but for those known already, as measurement point `self.point`."""
        self.count_seconds()
        self.measured_experience, self.measured_final = experience, final
        for stream in self.benchmarks:
            if stream.name not in known:
                self.eval(stream)
        if self.floors is not None:
            self.stop_reason = first_rank_says(self.world, self.floors(self.point) if self.world.main else "")
        self.point += 1
        self.since = time.perf_counter()

    def save(self, *, mark: bool = False) -> None:
        """Save a checkpoint, where there is a place for it; one with a mark stays."""
        if self.checkpoints is not None:
            self.count_seconds()
            resume.save(self, self.checkpoints, mark)

    def count_seconds(self) -> None:
        """Bring `train_seconds` up to now."""
        now = time.perf_counter()
        self.train_seconds, self.since = self.train_seconds + now - self.since, now

    # ------------------------------------------------------------------ one experience

    def train_dataset_adaptation(self, **kwargs: Any) -> None:
        """The experience's rows are already mixed by the strategies."""
        self.adapted_dataset = self._training_experience.dataset

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """One item is the micro-batches of one optimizer step, in the order of the mixture."""
        batches = self._training_experience.batches
        steps = range(self.first_step, len(batches))
        self.dataloader = DataLoader(batches, batch_size=None, sampler=steps, pin_memory=self.device.type == "cuda")
        self.domain_tokens = batches.trained(domain_only=True)
        self.totals = {of: batches.trained(of=of) for of in ("tokens", "bytes")}

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """The optimizer of the experience."""
        self.model = self.model_adaptation()
        self.make_optimizer()

    def model_adaptation(self, model: PreTrainedModel | None = None) -> PreTrainedModel:
        """The model stays as it is."""
        return self.model

    def make_optimizer(self, **kwargs: Any) -> None:
        """As the experience is configured: a new one, or the one of the experience before."""
        settings = self._training_experience.config.optimizer
        if settings.state == "carry":
            self.optimizer = carry_on(self.optimizer, self.model, settings)
        else:
            self.optimizer = make_optimizer(self.model, settings)

    def training_epoch(self, **kwargs: Any) -> None:
        """All optimizer steps of the experience."""
        experience = self._training_experience
        for step, window in enumerate(self.dataloader, start=self.first_step):
            if self._stop_training:
                break
            self._training_step(step, window, experience, **kwargs)
            before = self.tokens
            self.tokens += int(self.domain_tokens[step + 1] - self.domain_tokens[step])
            self.all_tokens += int(self.totals["tokens"][step + 1] - self.totals["tokens"][step])
            self.bytes += int(self.totals["bytes"][step + 1] - self.totals["bytes"][step])
            self._after_training_iteration(**kwargs)
            if step + 1 in experience.milestones and self.benchmarks:
                self.measure(experience=experience.name, final=False)
            self.first_step = step + 1
            milestone = any(before < tokens <= self.tokens for tokens in self.keep_at)
            due = milestone or self.clock.train_iterations % self.save_every == 0
            stop = self.stop_reason or (
                f"stopped as asked after step {step + 1} of {experience.name}" if self.stop_agreed else ""
            )
            if stop or (due and step + 1 < len(experience.batches)):
                self.save(mark=milestone)  # it raises what the save before this one could not do
            if stop:
                self._stop(stop)

    def _stop(self, reason: str) -> NoReturn:
        if self.checkpoints is not None:
            self.checkpoints.wait()
        raise StoppedError(reason)

    # ------------------------------------------------------------------ one optimizer step

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
        failed = self.checkpoints is not None and self.checkpoints.failed
        sums[0, 1:3] = torch.tensor([self.stop_asked or failed, self._unscale()])
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

    def _sync_gradients(self, last: bool) -> None:
        """Under FSDP gradients are reduced with the window's last micro-batch only."""
        if self.world.mesh is not None:
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]

    @property
    def _scale(self) -> float:
        return 1.0 if self.scaler is None else self.scaler.scale

    def _unscale(self) -> bool:
        """Bring the gradients back to scale; whether one of this rank's overflowed."""
        return self.scaler is not None and self.scaler.unscale(self.model)

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

    # ------------------------------------------------------------------ for strategies

    def sample_rows(self, sources: Sequence[str], *, part: Part, rows: int) -> list[Batch]:
        """A uniform sample of at most `rows` rows of a part of several sources, one row a batch.

        It is the same on every rank and for every run: what it is used for can be compared.
        """
        sample = reservoir({name: self.corpus.rows(name, part) for name in sources}, rows, seed=0)
        return [row_batch(sample, index) for index in range(len(sample))]

    def add_loss(self, values: Tensor) -> None:
        """In `before_backward`: add to the step's loss the mean over all its rows of `values`, one for each row here.

        values: (micro,). The mean is over all micro-batches and ranks, so the same for any number of them; rows that
        only fill up a micro-batch do not count.
        """
        assert self.mbatch is not None
        self.loss = self.loss + (values * self.mbatch["part"]).sum()

    def row_gradient(self, batch: Batch) -> None:
        """Set the gradient to that of one row's (weighted) mean token loss, without dropout, the same on every rank."""
        self.model.eval()
        self._sync_gradients(True)
        batch = {key: value.to(self.device) for key, value in batch.items()}
        mass = batch["weights"].sum()
        mass = torch.where(mass > 0, mass, 1)
        overflow = True
        while overflow:  # fp16: until the scale is small enough for this row
            self.optimizer.zero_grad()
            output = self.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
            losses = row_losses(output.logits, batch["labels"], batch["weights"])
            (losses.sum() / mass * self._scale).backward()
            overflow = self.scaler is not None and any_rank(self.world, self._unscale())
            if overflow and self.scaler is not None:
                self.scaler.update(overflow)
        self.model.train()
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
