"""Dark experience replay: rehearse a memory, and what was said of it when it was remembered."""

from collections.abc import Mapping
from typing import Any, Literal

from clmed.data.corpus import Corpus, Place, Rows, reservoir, reservoir_places
from clmed.data.mixture import Blend
from clmed.errors import UserError
from clmed.logits import StoredLogits, coarse_divergence, row_means
from clmed.strategy import Strategy
from clmed.stream import Phase

PAST, MEMORY = "past", "der-memory"


class DER(Strategy):
    """Dark experience replay (DER++): mix a memory into every step, and match the logits stored when a row entered it.

    A step's rows are (1 - ratio) domain and ratio memory. With z the stored logits and h the model's, adds
    alpha * mean over the memory's rows and positions with a loss of D(z, h),  where D is the mean squared difference of
    the `top` largest stored logits (`loss: mse`), or KL(softmax z || softmax h) (`kl`). The memory's labels count
    `beta` times what the ratio gives them: 1 is DER++, 0 is DER without labels.

    The memory is a uniform sample of at most `memory` rows of the train parts of the sources in `from`, among which
    `past` stands for all earlier experiences' own data. A row's logits are those of the model before the experience in
    which it first is in the memory: for an experience's own rows, the model that has just learned them.

    Family: regularisation
    Source: Buzzega et al., 2020, "Dark Experience for General Continual Learning", arXiv 2004.07211
    """

    follows = ("joint",)
    makes = ("der-memory",)

    def __init__(
        self,
        *,
        from_: list[str],
        ratio: float = 0.1,
        memory: int = 1000,
        alpha: float = 0.5,
        beta: float = 1.0,
        loss: Literal["mse", "kl"] = "mse",
        top: int = 32,
    ) -> None:
        if not 0 < ratio < 1 or memory < 1 or top < 1 or alpha < 0 or beta < 0 or not from_:
            raise UserError("der needs 0 < `ratio` < 1, `memory`, `top` >= 1, `alpha`, `beta` >= 0, and some `from`.")
        self.from_, self.ratio, self.memory, self.top = from_, ratio, memory, top
        self.alpha, self.beta, self.loss = alpha, beta, loss
        self.places: dict[int, list[Place]] = {}  # of the memory's rows, by experience
        self.stored = StoredLogits()

    def sources(self, phase: Phase, corpus: Corpus) -> Mapping[str, Rows]:
        """The memory, where there is something to remember."""
        names = [name for name in self.from_ if name != PAST] + [*(phase.past if PAST in self.from_ else ())]
        every = {name: corpus.rows(name) for name in dict.fromkeys(names)}
        self.places[phase.index] = reservoir_places(every, self.memory, phase.seed) if every else []
        return {MEMORY: reservoir(every, self.memory, phase.seed)} if every else {}

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with the memory's share on top."""
        return blend.add(mixed={MEMORY: self.ratio}) if self.places[phase.index] else blend

    def cost(self, size: Any) -> Mapping[str, float]:
        """The memory's tokens, on top of the domain's; a pass over it, and its logits' disk, at each experience."""
        read = self.memory * size.row_tokens * size.experiences
        disk = read * (8 * self.top + 4)
        return {"tokens": size.domain_tokens * self.ratio / (1 - self.ratio), "read": read, "disk": disk, "logits": 2}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Store what the model says of the rows that are new in the memory."""
        places = self.places[trainer.experience.current_experience]
        if new := [place for place in places if place not in self.stored]:
            self.stored.add(trainer.store_logits(new, top=self.top, temperature=1.0))

    def before_backward(self, trainer: Any, **kwargs: Any) -> None:
        """Add the distance to the stored logits, and let the labels count as they should."""
        batch, mixture = trainer.mbatch, trainer.experience.batches.mixture
        places = self.places[trainer.experience.current_experience]
        if not places:
            return
        mine = batch["source"] == mixture.sources.index(MEMORY)
        pairs = zip(mine.tolist(), batch["row"].tolist(), strict=True)
        own = [places[row] if here and row >= 0 else ("", -1) for here, row in pairs]
        where, ids, kept = self.stored.look_up(own, batch["labels"])
        logits = trainer.mb_output[where]
        if self.loss == "kl":
            values = coarse_divergence(logits, ids, kept, temperature=1.0)
        else:
            values = (logits.float().gather(-1, ids.long()) - kept[:, :-1]).square().mean(-1)
        trainer.add_loss(self.alpha / mixture.part_of_rows([MEMORY]) * row_means(values, where))
        trainer.loss = trainer.loss + (self.beta - 1) * (trainer.row_losses * batch["weight"] * mine).sum()

    def state_dict(self) -> dict[str, Any]:
        """Where the logits are."""
        return {"stored": self.stored.references}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back where the logits are."""
        self.stored = StoredLogits(state["stored"])
