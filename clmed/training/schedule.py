"""Learning-rate schedules: each experience warms up and decays anew, or stays at a level across experiences."""

import math

from clmed.config import OptimizerConfig


def learning_rate(step: int, steps: int, optimizer: OptimizerConfig) -> float:
    """The learning rate of step `step` (from 0) of an experience of `steps` optimizer steps.

    It rises linearly over the first `warmup` share of the steps, to lr at the last of them. Then, to final * lr at the
    last step:

    - cosine, linear: it falls along that curve (Ibrahim et al., 2024, arXiv 2403.08763, section 2: re-warming and
      re-decaying at each experience); constant: it stays at lr and never falls.
    - wsd (warm-up, stable, decay): it stays and falls along a line over the last `anneal` of the steps (Hu et al.,
      2024, arXiv 2404.06395; the line: Hägele et al., 2024, arXiv 2405.18392).
    - infinite: over the next `cooldown` of the steps it falls along a cosine to level * lr, stays there, and over the
      last `anneal` falls exponentially (Ibrahim et al., section 3, "infinite learning rate schedules").
    """
    warm = math.ceil(optimizer.warmup * steps)
    if step < warm:
        return optimizer.lr * (step + 1) / warm
    last = steps - 1
    if optimizer.decay in ("wsd", "infinite"):
        return optimizer.lr * _long(step - warm, last - warm, steps, optimizer)
    left = _falling(optimizer.decay, (step - warm) / max(1, last - warm))
    return optimizer.lr * (optimizer.final + (1 - optimizer.final) * left)


def _falling(curve: str, done: float) -> float:
    """1 at the beginning (done: 0), 0 at the end (done: 1)."""
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[curve]


def _long(step: int, last: int, steps: int, optimizer: OptimizerConfig) -> float:
    """The share of lr at a step after the warm-up: down to the level, along it, and down to the final share."""
    infinite = optimizer.decay == "infinite"
    level = optimizer.level if infinite else 1.0
    cool = math.ceil(optimizer.cooldown * steps) if infinite else 0
    if step < cool:
        return level + (1 - level) * _falling("cosine", step / cool)
    anneal = math.ceil(optimizer.anneal * steps)
    done = (step - (last - anneal)) / anneal if anneal else 0.0
    if done <= 0:
        return level
    if infinite:
        return level * (optimizer.final / level) ** done
    return optimizer.final + (level - optimizer.final) * _falling("linear", done)
