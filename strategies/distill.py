"""Distillation: keep saying what the model said before."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from clmed.data.corpus import Corpus, Rows, reservoir_places
from clmed.data.mixture import Blend
from clmed.errors import UserError
from clmed.logits import StoredLogits, coarse_divergence, divergence, predicting, row_means
from clmed.shards import clone_shards
from clmed.strategy import Strategy
from clmed.stream import Phase


class Distill(Strategy):
    """Learning without forgetting: on the rows trained, stay close to what the model before the experience says.

    Adds to the loss  strength * T^2 * mean over rows of the mean over positions of KL(p || q),  where p and q are the
    teacher's and the model's next-token probabilities at temperature T, at positions with a loss. The rows are those of
    the experience's own data (`domain`) and of the sources in `from`, which replay or interleave mix in. The teacher is
    the model as the experience began: `live`, a second set of shards that runs each micro-batch forward, or `stored`,
    its `top` logits on disk for a sample of `rows` rows, which stand for the others, too.

    Family: regularisation
    Source: Li & Hoiem, 2016, "Learning without Forgetting", arXiv 1606.09282; T: Hinton et al., 2015, arXiv 1503.02531
    """

    rehearsed = ("from",)

    def __init__(
        self,
        *,
        strength: float = 1.0,
        temperature: float = 2.0,
        domain: bool = True,
        from_: Sequence[str] = (),
        teacher: Literal["live", "stored"] = "live",
        rows: int = 1000,
        top: int = 32,
    ) -> None:
        if strength < 0 or temperature <= 0 or rows < 1 or top < 1 or not (domain or from_):
            raise UserError("distill needs `strength` >= 0, `temperature` > 0, `rows`, `top` >= 1, `domain` or `from`.")
        self.strength, self.temperature, self.domain, self.from_ = strength, temperature, domain, from_
        self.teacher, self.rows, self.top = teacher, rows, top
        self.weights: dict[str, Tensor] = {}
        self.logits, self.stored = Tensor(), StoredLogits()  # the live teacher's of a micro-batch; those on disk

    def check(self, phase: Phase, blend: Blend, corpus: Corpus) -> None:
        """A source that is not trained."""
        if missing := [name for name in self.from_ if not blend.tokens().get(name)]:
            raise UserError(f"distill: {phase.config.name} trains no {', '.join(missing)}: put replay from it beside.")

    def cost(self, size: Any) -> Mapping[str, float]:
        """The teacher: its shards, forward and logits; or a pass over the sample, and its logits' disk."""
        if self.teacher == "live":
            return {"copies": 1, "read": size.steps * size.step_tokens, "logits": 5}
        read = self.rows * size.row_tokens * size.experiences
        return {"read": read, "disk": read * (8 * self.top + 4), "logits": 2}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Take the teacher."""
        if self.teacher == "live":
            self.weights = clone_shards(trainer.model)
        else:
            rows, settings = self._meant(trainer), {"top": self.top, "temperature": self.temperature}
            places = reservoir_places(rows, self.rows, trainer.experience.batches.mixture.seed)
            self.stored = StoredLogits([trainer.store_logits(places, rows=rows, **settings)])

    def before_forward(self, trainer: Any, **kwargs: Any) -> None:
        """Ask the live teacher, on all ranks, whatever rows they have."""
        if self.teacher == "live":
            self.logits = trainer.logits_with(self.weights)

    def before_backward(self, trainer: Any, **kwargs: Any) -> None:
        """Add the divergence, so that its mean over an experience is that over the rows meant."""
        meant, batch, mixture = self._meant(trainer), trainer.mbatch, trainer.experience.batches.mixture
        sources, part = [mixture.sources[each] for each in batch["source"].tolist()], mixture.part_of_rows(meant)
        if self.teacher == "live":
            where = predicting(batch["labels"], [name in meant for name in sources])
            values = divergence(trainer.mb_output[where], self.logits[where], self.temperature)
        else:
            places = zip(sources, batch["row"].tolist(), strict=True)
            where, ids, kept = self.stored.look_up(places, batch["labels"])
            values = coarse_divergence(trainer.mb_output[where], ids, kept, self.temperature)
            part *= len(self.stored) / sum(map(len, meant.values()))
        trainer.add_loss(self.strength * self.temperature**2 / part * row_means(values, where))

    def _meant(self, trainer: Any) -> dict[str, Rows]:
        names = [*(trainer.experience.config.data if self.domain else ()), *self.from_]
        return trainer.experience.batches.rows_of(names)

    def state_dict(self) -> dict[str, Any]:
        """The teacher: its shards, or where its logits are."""
        return {"weights": self.weights, "stored": self.stored.references}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the teacher."""
        self.weights, self.stored = state["weights"], StoredLogits(state["stored"])
