"""L2-SP: hold all weights alike to where they were."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clmed.errors import UserError
from clmed.shards import add_to_gradients, clone_shards, quadratic_penalty
from clmed.strategy import Strategy

LOG_EVERY = 10  # steps between two values of the penalty: the gradient is free, the value costs a pass


class L2(Strategy):
    """L2-SP: pull every weight to its value before the experience, all with the same strength (the control for EWC).

    Adds the gradient of  strength/2 * sum_i (w_i - a_i)^2, which is strength * (w - a), where a are the weights when
    the experience began. AdamW scales it like any gradient by its second moment.

    It stands in the place of weight decay, as in the paper: AdamW's decay would at the same time pull the same weights
    towards zero, and no point is closest to both. So `optimizer.weight_decay` must be 0.

    Family: regularisation
    Source: Li et al., 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks",
    arXiv 1802.01483
    """

    optimizer = (("weight_decay", 0),)

    def __init__(self, *, strength: float = 0.01) -> None:
        if strength < 0:
            raise UserError("l2 needs a `strength` of at least 0.")
        self.strength = strength
        self.anchor: dict[str, Tensor] = {}

    def cost(self, size: Any) -> Mapping[str, float]:
        """The anchor."""
        return {"copies": 1}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Take the weights as they are."""
        self.anchor = clone_shards(trainer.model)

    def after_backward(self, trainer: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient to the final gradients, before clipping."""
        add_to_gradients(trainer.model, self.anchor, self.strength)
        if trainer.clock.train_exp_iterations % LOG_EVERY == 0:
            trainer.log["l2_penalty"] = quadratic_penalty(trainer.model, self.anchor, self.strength)

    def state_dict(self) -> dict[str, Any]:
        """The anchor, as local shards."""
        return {"anchor": self.anchor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the anchor."""
        self.anchor = state["anchor"]
