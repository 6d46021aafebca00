"""ContinualTrainer: Avalanche's callbacks around the training step of a language model.

One iteration is one optimizer step (clmed/training/step.py tells of it). After its after_training_iteration, and only
then, follows a measurement where one is due, then a checkpoint.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NoReturn

import torch
from avalanche.evaluation import PluginMetric
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates.base import BaseTemplate
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from clmed.data.corpus import Corpus
from clmed.errors import StoppedError
from clmed.results.start import Start
from clmed.strategy import Strategy
from clmed.stream import BenchmarkExperience, Experience
from clmed.training import resume
from clmed.training.checkpoint import Checkpoints, Found
from clmed.training.flops import flops
from clmed.training.optimizer import carry_on, make_optimizer
from clmed.training.precision import LossScaler
from clmed.training.sharding import World, first_rank_says
from clmed.training.step import StepTrainer
from clmed.training.structure import Structure


class ContinualTrainer(StepTrainer):
    """Trains a causal language model on a stream of experiences and measures it at every measurement point.

    model: already on its device, and sharded where `world` has a mesh.
    benchmarks: what is measured before the first experience, at milestones inside and after each.
    checkpoints: where to save after every `save_every` steps, every experience and the steps that reach the domain
        tokens `keep_at`; None saves nothing. The last stay, and with `keep_ends` those of the experiences.
    record: where the scores of a variant of the weights go (`measure_variant`); None measures none.
    structure: changes the model's structure before experiences, as strategies ask for; None leaves it.
    floors: says of a measurement point why the run must stop there, or nothing; asked on the first rank.
    point, tokens, all_tokens: the number of the measurement point, domain tokens and all tokens trained so far.
    """

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
        reduce_each: bool = True,
        structure: Structure | None = None,
        keep_at: Sequence[int] = (),
        keep_ends: bool = False,
        floors: Callable[[int], str] | None = None,
        record: Callable[..., None] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            world=world,
            corpus=corpus,
            scaler=scaler,
            reduce_each=reduce_each,
            plugins=[*strategies, *watchers],
            # The idle logger keeps Avalanche from warning that there is none; loggers belong to the first rank.
            evaluator=EvaluationPlugin(*metrics, loggers=[*loggers, BaseLogger()] if world.main else []),
        )
        self.benchmarks = list(benchmarks)
        self.point = 0
        self.tokens = self.all_tokens = self.bytes = 0
        self.is_last_experience = False
        self.measured_experience, self.measured_final = "", False
        self.checkpoints, self.save_every = checkpoints, save_every
        self.keep_at, self.keep_ends = keep_at, keep_ends
        self.train_seconds, self.since = 0.0, time.perf_counter()  # without measurements
        self.experiences: list[Experience] = []
        self.index = self.first_step = 0  # the place in the stream: experience, and its step to begin with
        self.floors, self.stop_reason = floors, ""
        self.record = record
        # Measurements by benchmark, where a strategy says that the weights never change: each is made once.
        self.unchanging: dict[str, Any] | None = None
        self.structure = structure

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
                self.change_structure([experience], initialise=True)
                self._before_training_exp(**kwargs)
            self._train_exp(experience, [], **kwargs)
            self._after_training_exp(**kwargs)
            if self.benchmarks:
                self.measure(experience=experience.name, final=True)
            self.index, self.first_step = self.index + 1, 0
            self.save(mark=self.keep_ends or self._is_milestone(len(experience.batches) - 1))
            if self.stop_reason:
                self._stop(self.stop_reason)
        if self.checkpoints is not None:
            self.checkpoints.wait()
        self._after_training(**kwargs)
        self._train_cleanup()

    def change_structure(self, experiences: Sequence[Experience], *, initialise: bool) -> None:
        """Let the strategies change the model's structure for further experiences; initialise: and fill what is new."""
        if self.structure is not None:
            self.model = self.structure.changed(self.model, [experience.phase for experience in experiences])
        self.forward_flops_per_token, self.flops_per_token = flops(self.model, self.corpus.length)
        if initialise and self.structure is not None:
            for experience in experiences:
                self.structure.initialise(self.model, experience.phase)

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

    def measure_variant(self, **variant: float) -> None:
        """Measure every benchmark on the weights as they are, beside the measurement points.

        The scores are recorded with the point that comes next and with `variant`, which says what these weights are
        (`alpha=0.5`). For strategies, between experiences (`after_training_exp`); all ranks call it.
        """
        if self.record is None:
            return
        self.count_seconds()
        for stream in self.benchmarks:
            for benchmark in stream:
                self.record(self, benchmark, benchmark.measure(self.model), variant)
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
        """The experience's rows are already mixed by the strategies; now those get their content that need a model."""
        experience = self._training_experience
        for plugin in self.plugins:
            if isinstance(plugin, Strategy):
                for name, rows in plugin.remember(self).items():
                    experience.batches.fill(name, rows)
        self.adapted_dataset = experience.dataset

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """One item is the micro-batches of one optimizer step, in the order of the mixture."""
        batches = self._training_experience.batches
        steps = range(self.first_step, len(batches))
        self.dataloader = DataLoader(
            batches,
            batch_size=None,
            sampler=steps,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else each start draws from the state that dropout goes on with
        )
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
            self.tokens += int(self.domain_tokens[step + 1] - self.domain_tokens[step])
            self.all_tokens += int(self.totals["tokens"][step + 1] - self.totals["tokens"][step])
            self.bytes += int(self.totals["bytes"][step + 1] - self.totals["bytes"][step])
            self._after_training_iteration(**kwargs)
            if step + 1 in experience.milestones and self.benchmarks:
                self.measure(experience=experience.name, final=False)
            self.first_step = step + 1
            milestone = self._is_milestone(step)
            due = milestone or self.clock.train_iterations % self.save_every == 0
            stop = self.stop_reason or (
                f"stopped as asked after step {step + 1} of {experience.name}" if self.stop_agreed else ""
            )
            if stop or (due and step + 1 < len(experience.batches)):
                self.save(mark=milestone)  # it raises what the save before this one could not do
            if stop:
                self._stop(stop)

    def _is_milestone(self, step: int) -> bool:
        """Whether the step just made has reached one of the domain tokens `keep_at`."""
        before = self.tokens - int(self.domain_tokens[step + 1] - self.domain_tokens[step])
        return any(before < tokens <= self.tokens for tokens in self.keep_at)

    def _wants_to_stop(self) -> bool:
        return super()._wants_to_stop() or (self.checkpoints is not None and self.checkpoints.failed)

    def _stop(self, reason: str) -> NoReturn:
        if self.checkpoints is not None:
            self.checkpoints.wait()
        raise StoppedError(reason)

    # ------------------------------------------------------------------ measuring

    def _before_eval_exp(self, **kwargs: Any) -> None:
        BaseTemplate._before_eval_exp(self, **kwargs)  # no data loader: a benchmark brings its own batches

    def _eval_exp(self, **kwargs: Any) -> None:
        assert isinstance(self.experience, BenchmarkExperience)
        name = self.experience.name
        self.mb_output = (self.unchanging or {}).get(name) or self.experience.measure(self.model)
        if self.unchanging is not None:
            self.unchanging[name] = self.mb_output

    @property
    def _training_experience(self) -> Experience:
        assert isinstance(self.experience, Experience)
        return self.experience
