"""Rewarm: warm the learning rate up again, let it decay again, and replay a little."""

from clmed.strategies.replay import Replay  # type: ignore[import-not-found]  # mypy knows the folder as strategies

from clmed.config import OptimizerConfig
from clmed.errors import UserError
from clmed.stream import Phase


class Rewarm(Replay):
    """Re-warm and re-decay the learning rate in every experience, and mix in a share of general text: the recipe.

    In each experience the rate rises linearly from 0 to the experience's `lr` over the first `warmup` of the steps and
    falls along a cosine to `final` * lr at the last, whatever its `decay` says; `ratio` of the tokens are replayed from
    the sources in `from`. Published: 1 % of warm-up (its length made no difference), a fall to 10 %, and 5 % of replay
    where the new text is like the old, 25 % where it is another language.

    Family: schedule
    Source: Ibrahim et al., 2024, "Simple and Scalable Strategies to Continually Pre-train Large Language Models", arXiv
        2403.08763
    """

    def __init__(
        self, *, from_: list[str], ratio: float = 0.05, warmup: float = 0.01, final: float = 0.1, memory: int = 1000
    ) -> None:
        if not (0 <= warmup < 1 and 0 <= final <= 1):
            raise UserError("rewarm needs a `warmup` from 0 to below 1 and a `final` from 0 to 1.")
        super().__init__(ratio=ratio, from_=from_, memory=memory)
        self.warmup, self.final = warmup, final

    def schedule(self, phase: Phase, base: OptimizerConfig) -> OptimizerConfig:
        """Linear warm-up, then a cosine."""
        return base.model_copy(update={"warmup": self.warmup, "decay": "cosine", "final": self.final})
