"""Frozen: train nothing."""

from collections.abc import Mapping
from typing import Any

from clmed.strategy import Strategy


class Frozen(Strategy):
    """Train nothing: the base model's scores at every experience's end, the reference that forgets nothing.

    Every experience ends before its first step, so that tables and figures have its points; as the weights never
    change, each benchmark is measured once and its scores stand at all of them.

    Family: references
    Source: the model before training, as in TRACE's General Ability Delta (Wang et al., 2023, arXiv 2310.06762)
    """

    alone = "trains nothing"

    def cost(self, size: Any) -> Mapping[str, float]:
        """No weight is trained."""
        return {"trained": 0}

    def before_training(self, trainer: Any, **kwargs: Any) -> None:
        """Measurements are kept from here on."""
        trainer.unchanging = {}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """No step of this experience."""
        trainer.stop_training()
