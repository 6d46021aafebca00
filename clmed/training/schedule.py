"""Learning-rate schedules: each experience warms up and decays anew."""

import math

from clmed.config import OptimizerConfig


def learning_rate(step: int, steps: int, optimizer: OptimizerConfig) -> float:
    """The learning rate of step `step` (from 0) of an experience of `steps` optimizer steps.

    It rises linearly over the first `warmup` share of the steps (to lr at the last of them) and then falls from lr to
    final * lr at the last step, along a cosine or a line, or stays. Re-warming and re-decaying at each experience is
    the recipe of Ibrahim et al., 2024, arXiv 2403.08763, section 2.
    """
    warm = math.ceil(optimizer.warmup * steps)
    if step < warm:
        return optimizer.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - 1 - warm)
    left = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[optimizer.decay]
    return optimizer.lr * (optimizer.final + (1 - optimizer.final) * left)
