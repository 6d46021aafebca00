"""Soup: average with the old weights while training goes on."""

from typing import Any

from torch import Tensor

from clmed.errors import UserError
from clmed.shards import blend_shards, clone_shards
from clmed.strategy import Strategy


class Soup(Strategy):
    """Average the weights with those before the experience, again and again while it trains.

    After every `every` of the experience's steps, and at its end,  theta <- (1 - alpha) theta_0 + alpha theta,  where
    theta_0 are the weights before it (0.25: four times). `every: 1.0` is one average at the end, as `average` makes it.
    The optimizer's moments stay as they are.

    Family: weight space
    Source: Kleiman et al., 2025, "Soup to go: mitigating forgetting during continual learning with model averaging"
        (SFA), arXiv 2501.05559
    """

    averages = True
    decides = ("how weights are averaged in training",)

    def __init__(self, *, every: float = 0.25, alpha: float = 0.5) -> None:
        if not (0 < every <= 1 and 0 <= alpha <= 1):
            raise UserError("soup needs `every`, a share of the steps above 0 and up to 1, and an `alpha` from 0 to 1.")
        self.every, self.alpha = every, alpha
        self.anchor: dict[str, Tensor] = {}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Keep the old weights."""
        self.anchor = clone_shards(trainer.model)

    def after_training_iteration(self, trainer: Any, **kwargs: Any) -> None:
        """Average where a step ends a part."""
        if ends_part(trainer.clock.train_exp_iterations + 1, len(trainer.experience.batches), self.every):
            blend_shards(trainer.model, self.anchor, self.alpha)

    def cost(self, size: Any) -> dict[str, float]:
        """The old weights."""
        return {"copies": 1}

    def state_dict(self) -> dict[str, Any]:
        """The old weights, as local shards."""
        return {"anchor": self.anchor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the old weights."""
        self.anchor = state["anchor"]


def ends_part(step: int, steps: int, every: float) -> bool:
    """Whether a step, counted from 1, is the last of all or the nearest to the end of a part, `every` of them."""
    every = max(every, 1 / steps)  # parts shorter than a step end with each
    part = step // (every * steps)
    return step == steps or step in (round(part * every * steps), round((part + 1) * every * steps))
