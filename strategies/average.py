"""Average: after each experience, a point on the line between the old weights and the new."""

from typing import Any, Literal

from torch import Tensor

from clmed.errors import UserError
from clmed.shards import blend_shards, clone_shards, put_shards
from clmed.strategy import Strategy


class Average(Strategy):
    """After each experience move the weights back along the line to the old ones: less learnt, less forgotten.

    theta <- (1 - alpha) theta_0 + alpha theta, with theta_0 the weights before the experience (`towards: previous`) or
    before the first one (`towards: base`). The next experience goes on from there.

    `trace: [0.2, 0.4]` also measures the weights at these alphas, at the end of each experience and without training
    again: their scores are in variants.jsonl, each row with its `alpha`; the run itself goes on at `alpha`.

    Family: weight space
    Source: Wortsman et al., 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), arXiv 2109.01903; of language
        models: Lin et al., 2023, arXiv 2309.06256
    """

    averages = True
    decides = ("with which weights an experience ends",)

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        towards: Literal["previous", "base"] = "previous",
        trace: list[float] = [],  # noqa: B006
    ) -> None:
        if not all(0 <= value <= 1 for value in (alpha, *trace)):
            raise UserError("average needs an `alpha`, and in `trace` alphas, from 0 (old weights) to 1 (new ones).")
        self.alpha, self.towards, self.trace = alpha, towards, trace
        self.anchor: dict[str, Tensor] = {}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Keep the old weights."""
        if self.towards == "previous" or not self.anchor:
            self.anchor = clone_shards(trainer.model)

    def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Measure along the line, then stay at `alpha`."""
        if self.trace:
            trained = clone_shards(trainer.model)
            for alpha in self.trace:
                blend_shards(trainer.model, self.anchor, alpha)
                trainer.measure_variant(alpha=alpha)
                put_shards(trainer.model, trained)
        blend_shards(trainer.model, self.anchor, self.alpha)

    def cost(self, size: Any) -> dict[str, float]:
        """The old weights, and while tracing the new ones."""
        return {"copies": 2 if self.trace else 1}

    def state_dict(self) -> dict[str, Any]:
        """The old weights, as local shards."""
        return {"anchor": self.anchor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the old weights."""
        self.anchor = state["anchor"]
