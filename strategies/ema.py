"""EMA: end each experience at the moving average of its weights."""

from typing import Any

from torch import Tensor

from clmed.errors import UserError
from clmed.shards import clone_shards, put_shards, shards
from clmed.strategy import Strategy


class EMA(Strategy):
    """End each experience at an exponential moving average of its weights, which begins with the old ones.

    After each step  m <- decay m + (1 - decay) theta,  with m = theta before the first; at the experience's end
    theta <- m. After n steps the old weights are decay^n of it (0.999: 90 % after 100 steps, 37 % after 1,000), so a
    decay near 1 in a short experience keeps nearly everything as it was.

    Inside an experience the weights that train are measured and saved, not their average. In the paper they also go on
    through the next experience; here it starts from the average, which is the model that was measured and saved.

    Family: weight space
    Source: Stojanovski et al., 2022, "Momentum-based Weight Interpolation of Strong Zero-Shot Models for Continual
        Learning", arXiv 2211.03186
    """

    averages = True
    decides = ("how weights are averaged in training", "with which weights an experience ends")

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UserError("ema needs a `decay` from 0 to below 1.")
        self.decay = decay
        self.mean: dict[str, Tensor] = {}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """The average begins with the old weights."""
        self.mean = clone_shards(trainer.model)

    def after_update(self, trainer: Any, **kwargs: Any) -> None:
        """One step more."""
        for name, shard in shards(trainer.model):
            self.mean[name].lerp_(shard, 1 - self.decay)

    def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """The model is the average from here on."""
        put_shards(trainer.model, self.mean)

    def cost(self, size: Any) -> dict[str, float]:
        """The average."""
        return {"copies": 1}

    def state_dict(self) -> dict[str, Any]:
        """The average, as local shards."""
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the average."""
        self.mean = state["mean"]
