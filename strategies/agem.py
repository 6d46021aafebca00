"""A-GEM: never step against what a memory asks for."""

from collections.abc import Mapping
from typing import Any

from clmed.data.batches import Batches
from clmed.data.corpus import Corpus, Rows, reservoir
from clmed.errors import UserError
from clmed.shards import gradients, inner_product
from clmed.strategy import Strategy
from clmed.stream import Phase

PAST = "past"


class AGEM(Strategy):
    """Averaged gradient episodic memory: where a step's gradient conflicts with the memory's, remove what conflicts.

    With g the step's gradient and r that of the mean token loss of `rows` rows of the memory (others at each step):
    where g.r < 0, g becomes  g - (g.r / r.r) r, which is orthogonal to r, so that to first order the loss on the memory
    does not rise. Where g.r >= 0 nothing changes.

    The memory is a uniform sample of at most `memory` rows of the train parts of the sources in `from`, among which
    `past` stands for all earlier experiences' own data. It depends on (seed, past experiences) alone and is not stored.
    r is computed without dropout; both gradients are whole and unscaled, whatever the precision or accumulation.

    Family: regularisation
    Source: Chaudhry et al., 2019, "Efficient Lifelong Learning with A-GEM", arXiv 1812.00420
    """

    def __init__(self, *, from_: list[str], memory: int = 1000, rows: int = 16) -> None:
        if memory < 1 or rows < 1 or not from_:
            raise UserError("agem needs a `memory` and `rows` of at least 1, and a source (or `past`) in `from`.")
        self.from_, self.memory, self.rows = from_, memory, rows
        self.memories: dict[int, Rows] = {}  # by experience
        self.batches: dict[int, Batches] = {}

    def sources(self, phase: Phase, corpus: Corpus) -> Mapping[str, Rows]:
        """None that is trained on; but the experience's memory is chosen here."""
        names = [name for name in self.from_ if name != PAST] + [*(phase.past if PAST in self.from_ else ())]
        if names:
            every = {name: corpus.rows(name) for name in dict.fromkeys(names)}
            self.memories[phase.index] = reservoir(every, self.memory, phase.seed)
        return {}

    def cost(self, size: Any) -> Mapping[str, float]:
        """The memory's gradient at each step (forward and backward are three forwards), beside the step's own."""
        return {"gradients": 1, "read": 3 * self.rows * size.row_tokens * size.steps}

    def after_backward(self, trainer: Any, **kwargs: Any) -> None:
        """Project the final gradient, before clipping."""
        index = trainer.experience.current_experience
        if index not in self.memories:
            return
        if index not in self.batches:
            self.batches[index] = trainer.experience.batches.beside(self.memories[index], self.rows)
        own = {name: gradient.clone() for name, gradient in gradients(trainer.model)}
        trainer.window_gradient(self.batches[index][trainer.clock.train_exp_iterations])
        memory = dict(gradients(trainer.model))
        conflict = inner_product(trainer.model, own, memory)
        factor = -conflict / inner_product(trainer.model, memory, memory) if conflict < 0 else 0.0
        for name, gradient in memory.items():
            gradient.mul_(factor).add_(own[name])
        trainer.log["agem_conflict"] = float(conflict < 0)
