"""Saving where a trainer stands, and going on from there as if nothing had happened."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avalanche.training.plugins.clock import Clock

from clmed.config.stream import BASE
from clmed.results.start import Start
from clmed.strategy import Strategy
from clmed.stream import Experience
from clmed.training.checkpoint import Checkpoints, Found
from clmed.training.optimizer import make_optimizer
from clmed.training.state import collect, restore

if TYPE_CHECKING:
    from clmed.training.trainer import ContinualTrainer

PLACE = ("index", "first_step", "point", "tokens", "all_tokens", "bytes", "flops", "train_seconds")


def save(trainer: "ContinualTrainer", checkpoints: Checkpoints, mark: bool) -> None:
    """Save everything from which the rest follows."""
    tensors, strategies = collect(
        trainer.model,
        trainer.optimizer if _needs_optimizer(trainer) else None,
        [plugin.state_dict() for plugin in trainer.plugins if isinstance(plugin, Strategy)],
    )
    place = {name: getattr(trainer, name) for name in PLACE}
    clock = {name: value for name, value in vars(trainer.clock).items() if isinstance(value, int)}
    name = f"{trainer.clock.train_iterations:08d}-{trainer.index}"
    values = {"place": place, "clock": clock, "strategies": strategies}
    if trainer.scaler is not None:
        values["scaler"] = trainer.scaler.state_dict()
    checkpoints.save(name, tensors, values, mark)


def begin(trainer: "ContinualTrainer", start: Start | None) -> None:
    """Measure the model that a stream starts with, as far as that is not known."""
    experience, final, known = BASE, True, frozenset[str]()
    if start is not None:
        experience, final, known = start.point.experience, start.point.final, start.known
        trainer.point = start.point.number
        for name, value in start.counters.items():
            setattr(trainer, name, value)
    if trainer.benchmarks:
        trainer.measure(experience=experience, final=final, known=known)


def go_on(trainer: "ContinualTrainer", stream: Sequence[Experience], found: Found) -> None:
    """Return to a checkpoint: strategies get their state back instead of `before_training_exp`."""
    for owner, kept in ((trainer, found.values["place"]), (trainer.clock, found.values["clock"])):
        for name, value in kept.items():
            setattr(owner, name, value)
    begun = trainer.index + (trainer.first_step > 0)
    trainer.change_structure(stream[:begun], initialise=False)
    if trainer.scaler is not None:
        trainer.scaler.load_state_dict(found.values["scaler"])
    if _needs_optimizer(trainer):  # one to load the saved state into; what it is set to comes with the experience
        trainer.optimizer = make_optimizer(trainer.model, stream[trainer.index].config.optimizer)
    if trainer.first_step:
        trainer.experience = stream[trainer.index]
        trainer.check_model_and_optimizer()
    optimizer = trainer.optimizer if _needs_optimizer(trainer) else None
    states = restore(found.path, trainer.model, optimizer, found.values["strategies"])
    strategies = [plugin for plugin in trainer.plugins if isinstance(plugin, Strategy)]
    for plugin, state in zip(strategies, states, strict=True):
        plugin.load_state_dict(state)
    if trainer.first_step:
        trainer.train_dataset_adaptation()
        trainer.make_train_dataloader()
        for plugin in trainer.plugins:
            if not isinstance(plugin, Strategy | Clock) and hasattr(plugin, "before_training_exp"):
                plugin.before_training_exp(trainer)
    trainer.since = time.perf_counter()


def _needs_optimizer(trainer: "ContinualTrainer") -> bool:
    """Whether what follows depends on the optimizer: inside an experience, and before one that carries it on."""
    ahead = trainer.experiences[trainer.index :]
    return trainer.first_step > 0 or (bool(ahead) and ahead[0].config.optimizer.state == "carry")
