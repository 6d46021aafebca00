"""The stream of experiences and the benchmarks, as an Avalanche scenario made from the configuration."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from avalanche.benchmarks import CLScenario, DatasetExperience
from avalanche.benchmarks.scenarios.generic_scenario import EagerCLStream
from avalanche.benchmarks.utils.data import AvalancheDataset
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from clmed.config import ExperienceConfig, TrainingConfig
from clmed.data.batches import Batches
from clmed.data.corpus import Corpus, Rows
from clmed.data.mixture import Blend, schedule
from clmed.errors import UserError
from clmed.quantities import measurement_point, measurement_tokens
from clmed.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One experience as strategies see it before it is built: its settings, its place, and what came before.

    earlier: the sources of each earlier experience, a source where it came first.
    """

    config: ExperienceConfig
    index: int
    earlier: tuple[tuple[str, ...], ...]
    seed: int

    @property
    def past(self) -> tuple[str, ...]:
        """The sources of all earlier experiences, without repetition."""
        return tuple(name for names in self.earlier for name in names)


class Experience(DatasetExperience):
    """One training phase: Avalanche's experience with its settings, its batches and its measurement points."""

    def __init__(self, *, phase: Phase, batches: Batches, epoch: int) -> None:
        """epoch: tokens of the whole text, of which a strategy may train on a part."""
        super().__init__(dataset=AvalancheDataset([batches]), current_experience=phase.index)
        self.phase, self.batches = phase, batches
        self.config, self.name = phase.config, phase.config.name
        self.milestones = milestones(phase.config, batches, epoch)


class BenchmarkExperience(DatasetExperience):
    """One benchmark: what is measured at every measurement point, and how."""

    def __init__(
        self,
        *,
        name: str,
        role: str,
        items: Sequence[Any],
        measure: Callable[[PreTrainedModel], Any],
        content: Iterable[Any] = (),
    ) -> None:
        """role: gain or retention; measure: scores a model on the items.

        content: with the items all that a score depends on but the model; their text is hashed into `digest`.
        """
        super().__init__(dataset=AvalancheDataset([_Items(items)]), current_experience=0)
        self.name, self.role, self.measure = name, role, measure
        hashed = hashlib.sha256()
        for part in (*items, *content):
            hashed.update(repr(part).encode())
        self.digest = hashed.hexdigest()


class _Items(Dataset):
    """A sequence as Avalanche wants its data sets: hashable."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def make_scenario(
    experiences: Sequence[ExperienceConfig],
    *,
    training: TrainingConfig,
    corpus: Corpus,
    strategies: Sequence[Strategy],
    seed: int,
    benchmarks: Sequence[BenchmarkExperience] = (),
    rank: int = 0,
    ranks: int = 1,
    past: Sequence[Sequence[str]] = (),
    before: int = 0,
) -> CLScenario:
    """The train stream, then one stream for each benchmark.

    past: the sources of each experience that the model was trained on before, a source where it came first; before:
    how many these were.
    """
    batches = partial(_batches, training=training, corpus=corpus, strategies=strategies, rank=rank, ranks=ranks)
    built = [
        Experience(
            phase=phase,
            batches=batches(phase, _seed(seed, before + phase.index)),
            epoch=sum(int(corpus.rows(name).tokens.sum()) for name in phase.config.data),
        )
        for phase in make_phases(experiences, strategies, seed, past)
    ]
    streams = [EagerCLStream("train", built)]
    streams += [EagerCLStream(benchmark.name, [benchmark]) for benchmark in benchmarks]
    return CLScenario(streams)


def make_phases(
    experiences: Sequence[ExperienceConfig],
    strategies: Sequence[Strategy],
    seed: int,
    past: Sequence[Sequence[str]] = (),
) -> list[Phase]:
    """The experiences that the strategies make of the configured ones, in order."""
    for strategy in strategies:
        experiences = strategy.stream(experiences)
    phases: list[Phase] = []
    earlier = tuple(tuple(names) for names in past)
    for index, config in enumerate(experiences):
        phase = _scheduled(Phase(config=config, index=index, earlier=earlier, seed=seed), strategies)
        phases.append(phase)
        earlier += (tuple(dict.fromkeys(name for name in config.data if name not in phase.past)),)
    return phases


def _scheduled(phase: Phase, strategies: Sequence[Strategy]) -> Phase:
    """The phase with the optimizer settings that the strategies choose."""
    optimizer = phase.config.optimizer
    for strategy in strategies:
        optimizer = strategy.schedule(phase, optimizer)
    return replace(phase, config=phase.config.model_copy(update={"optimizer": optimizer}))


def _batches(
    phase: Phase,
    seed: int,
    *,
    training: TrainingConfig,
    corpus: Corpus,
    strategies: Sequence[Strategy],
    rank: int,
    ranks: int,
) -> Batches:
    blend = domain_blend(phase.config, corpus)
    made: dict[str, Rows] = {}
    for strategy in strategies:
        made.update(strategy.sources(phase, corpus))
        blend = strategy.mixture(phase, blend, corpus)
    for strategy in strategies:
        strategy.check(phase, blend, corpus)
    rows = {name: made[name] if name in made else corpus.rows(name) for name in blend.tokens()}
    mixture = schedule(
        blend,
        rows={name: len(found) for name, found in rows.items()},
        tokens_per_row={name: float(found.tokens.mean()) for name, found in rows.items()},
        rows_per_step=training.tokens_per_step // training.sequence_length,
        seed=seed,
    )
    return Batches(
        mixture=mixture,
        rows=rows,
        weighting=training.weighting,
        micro_batch_size=training.micro_batch_size,
        rank=rank,
        ranks=ranks,
    )


def domain_blend(config: ExperienceConfig, corpus: Corpus) -> Blend:
    """An experience's own data: passes over each of its sources, or tokens shared out by their sizes."""
    sizes = {name: float(corpus.rows(name).tokens.sum()) for name in config.data}
    passes = config.epochs if config.epochs is not None else (config.tokens or 0) / sum(sizes.values())
    domain = {name: size * passes for name, size in sizes.items()}
    return Blend(domain=domain, mixed={}, alternated={}, budget=config.budget)


def milestones(config: ExperienceConfig, batches: Batches, epoch: int) -> dict[int, str]:
    """The step after which each measurement point inside the experience falls: the first to reach its domain tokens.

    epoch: how many of these an epoch has.
    """
    trained = batches.trained(domain_only=True)
    found: dict[int, str] = {}
    for point in config.measure_at:
        amount, unit = measurement_point(point)
        if amount == (config.tokens if unit == "tokens" else config.epochs):
            continue  # the end, which is at the nearest row: perhaps a few tokens before or behind
        step = int(np.searchsorted(trained, measurement_tokens(point, epoch)))
        if step > batches.mixture.steps:
            raise UserError(
                f"Experience {config.name!r}: measure_at {point!r} lies beyond its end, which is at {trained[-1]:,} "
                f"domain tokens ({trained[-1] / epoch:.2f} epochs). Choose an earlier one or leave it out: the end is "
                "always measured."
            )
        if step < batches.mixture.steps:
            found[step] = str(point)
    return found


def points_inside(stream: Sequence[Experience], before: int) -> list[int]:
    """Domain tokens of the whole run at the measurement points inside experiences, when it starts at `before`."""
    found = []
    for experience in stream:
        trained = experience.batches.trained(domain_only=True)
        found += [before + int(trained[step]) for step in sorted(experience.milestones)]
        before += int(trained[-1])
    return found


def _seed(seed: int, index: int) -> int:
    """A seed of its own for each experience, so that two experiences on one source do not repeat an order."""
    return seed * 1000 + index
