"""Equal compute: the stream of a configuration made longer or shorter until it takes so many FLOPs.

Counted as clmed counts (`clmed plan`): every trained token, and what strategies add, such as replayed tokens, a
teacher's forward passes or rows for the Fisher information. What a method spends beside the domain's tokens, it has
fewer of these for.
"""

import math
from typing import Any

from clmed.config import ExperimentConfig
from clmed.errors import UserError
from clmed.planning.estimate import Estimate
from clmed.planning.gpus import find

LEAST, MOST = 1e-4, 8.0  # times the stream
CLOSE = 1e-4
STEPS = 10


def flops(config: ExperimentConfig) -> float:
    """Of training, as `clmed plan` has it for one process."""
    plan = Estimate(
        config=config, gpu=find("a100-80gb"), ranks=1, utilisation=0.4, per_node=1, write_speed=1e9, given={}
    )
    return plan.flops


def at_budget(config: ExperimentConfig, budget: float) -> ExperimentConfig:
    """The configuration with a stream of `budget` FLOPs, its experiences in their proportions, measured at their ends.

    UserError where what the strategies do beside training takes the budget alone.
    """
    if (least := flops(scaled(config, LEAST))) > budget:
        raise UserError(f"{config.name}: its strategies alone take more than the budget of {budget:.3g} FLOPs.")
    # Nearly a straight line, so the secant method needs a step or two.
    before, factor = (LEAST, least), 1.0
    for _ in range(STEPS):
        found = flops(scaled(config, factor))
        if abs(found - budget) <= CLOSE * budget or found == before[1]:
            break
        slope = (found - before[1]) / (factor - before[0])
        before, factor = (factor, found), min(max(factor + (budget - found) / slope, LEAST), MOST)
    return scaled(config, factor)


def scaled(config: ExperimentConfig, factor: float) -> ExperimentConfig:
    """Every experience `factor` times as long; points inside them are left out."""
    data: dict[str, Any] = config.model_dump(mode="json")
    for experience in data["stream"]:
        experience["measure_at"] = []
        if experience["tokens"] is not None:
            experience["tokens"] = max(1, math.floor(experience["tokens"] * factor))
        else:
            experience["epochs"] = experience["epochs"] * factor
    data["training"] |= {"keep_at": [], "keep_measured": False}
    return ExperimentConfig.model_validate(data)
