"""Which runs share a beginning, so that it is done once: by one run first, while the others wait for it.

Runs that begin alike share the work (clmed/lineage.py), but two that are started together do not wait for each other.
What is compared here is the configuration alone. It may take two runs for alike that are not, and then one waits for
nothing; what is shared in the end, lineage decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed.config import ExperimentConfig, fingerprint
from clmed.results import manifest
from clmed.results.rundir import RunDirectory

# Settings of training that do not change what comes out, as in clmed/lineage.py.
NO_MATTER = {
    "save_every", "checkpoints_kept", "keep_at", "keep_measured", "asynchronous_saves", "share_experiences", "device",
    "threads",
}  # fmt: skip
NOTHING = -1  # where the base and its measurement are 0, the end of the first experience 1, …


def beginnings(config: ExperimentConfig) -> tuple[str, ...]:
    """What the base, and the state after each experience, are known by; of runs that share nothing: no more."""
    training = config.training.model_dump(mode="json", exclude=NO_MATTER)
    kl = config.watching.kl
    measured: Any = [config.model, config.from_, config.data_root, config.data, config.evaluation, kl]
    measured += [training["precision"], training["sharding"]]
    keys = [fingerprint(measured)]
    if not config.training.share_experiences:
        return tuple(keys) if config.model.build is not None else ()
    before = [config.seed, list(config.strategy.items()), training]
    for index, experience in enumerate(config.stream):
        following = config.stream[index + 1 :]
        carried = bool(following) and following[0].optimizer.state == "carry"
        keys.append(fingerprint([keys[-1], before, experience, bool(following), carried]))
    return tuple(keys)


def shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How far two runs with these beginnings are alike: NOTHING, 0 for the base, or so many experiences."""
    return sum(a == b for a, b in zip(one, other, strict=False)) + NOTHING


def reached(run: RunDirectory) -> int:
    """How far a run has done what others can take from it."""
    if not run.has_trained():
        return NOTHING
    return max((_experiences(path) for path in manifest.checkpoints(run.checkpoints)), default=0)


def _experiences(checkpoint: Path) -> int:
    """Of which so many the checkpoint is the end; 0 where it is none, or will not stay."""
    try:
        place = manifest.read(checkpoint).values["place"]
    except ValueError:
        return 0
    return 0 if place["first_step"] or not (checkpoint / manifest.KEPT).exists() else int(place["index"])


@dataclass(frozen=True)
class Doing:
    """A run that was started: what it is known by, and how far it has come."""

    known_by: tuple[str, ...]
    reached: int


def should_wait(known_by: tuple[str, ...], running: Sequence[Doing], finished: Sequence[Doing]) -> bool:
    """Whether a run in progress is doing what this one needs, and nobody has done yet."""
    ready = [min(shared(known_by, other.known_by), other.reached) for other in (*running, *finished)]
    return any(shared(known_by, other.known_by) > max(ready) for other in running)
