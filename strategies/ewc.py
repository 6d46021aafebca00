"""EWC: hold the weights that earlier knowledge depends on."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from clmed.data.corpus import Corpus
from clmed.data.mixture import Blend
from clmed.errors import UserError
from clmed.shards import add_to_gradients, clone_shards, quadratic_penalty
from clmed.strategy import Strategy
from clmed.stream import Phase

LOG_EVERY = 10  # steps between two values of the penalty: the gradient is free, the value costs a pass


class EWC(Strategy):
    """Elastic weight consolidation: pull each weight to its old value, by how much the old data depends on it.

    Adds the gradient of  strength/2 * sum_i F_i (w_i - a_i)^2  where a are the weights before the experience and F is
    the diagonal of the Fisher information: the mean over rows of the squared gradient of a row's mean token loss, with
    the data's `labels` (the empirical Fisher) or with labels drawn from the `model`. F comes from the `fisher` part of
    the general sources in `fisher_from` before the first experience, and with `past: true` from each experience's own
    data after it. `separate` keeps a penalty (F, a) for each of these; `online` keeps one: F <- decay * F + F_new with
    the latest weights as anchor.

    Every rank computes the gradient of the same row, so that the reduced gradient is that row's and its square
    is exact for any number of ranks.

    Family: regularisation
    Source: Kirkpatrick et al., 2017, arXiv 1612.00796; online: Schwarz et al., 2018, arXiv 1805.06370
    """

    across = True

    def __init__(
        self,
        *,
        strength: float = 1000.0,
        fisher_from: list[str],
        rows: int = 200,
        past: bool = True,
        mode: Literal["online", "separate"] = "online",
        decay: float = 1.0,
        labels: Literal["data", "model"] = "data",
    ) -> None:
        if strength < 0 or rows < 1 or not 0 <= decay <= 1 or not (fisher_from or past):
            raise UserError("ewc needs `strength` >= 0, `rows` >= 1, 0 <= `decay` <= 1, and a `fisher_from` or `past`.")
        self.strength, self.fisher_from, self.rows = strength, fisher_from, rows
        self.past, self.mode, self.decay, self.labels = past, mode, decay, labels
        self.penalties: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # (Fisher, anchor)

    def check(self, phase: Phase, blend: Blend, corpus: Corpus) -> None:
        """A `fisher` part that is empty."""
        for name in [*self.fisher_from, *(phase.past if self.past else ())]:
            corpus.rows(name, "fisher")

    def cost(self, size: Any) -> Mapping[str, float]:
        """A Fisher and an anchor for each penalty, and the rows whose gradients make the Fisher."""
        past = size.experiences - 1 if self.past else 0
        times = past + (1 if self.fisher_from else 0)
        copies = 2 * (min(times, 1) if self.mode == "online" else times)
        return {"copies": copies, "rows": self.rows * times, "cached": 1 if self.fisher_from else 0}

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Before the first experience: what the general data depends on."""
        if not self.penalties and self.fisher_from:
            self._consolidate(trainer, self.fisher_from)

    def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """After each experience: what its own data depends on."""
        if self.past and not trainer.is_last_experience:
            self._consolidate(trainer, trainer.experience.config.data)

    def after_backward(self, trainer: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient to the final gradients, before clipping."""
        for fisher, anchor in self.penalties:
            add_to_gradients(trainer.model, anchor, self.strength, fisher)
        if trainer.clock.train_exp_iterations % LOG_EVERY == 0:
            penalties = (quadratic_penalty(trainer.model, a, self.strength, fisher) for fisher, a in self.penalties)
            trainer.log["ewc_penalty"] = sum(penalties)

    def _consolidate(self, trainer: Any, sources: list[str]) -> None:
        # The general sources' is kept for other runs: they begin with the same model, rows, and so Fisher.
        fisher = trainer.fisher(sources, rows=self.rows, labels=self.labels, kept=sources is self.fisher_from)
        if self.mode == "online" and self.penalties:
            (old, _), *_ = self.penalties
            for name, values in fisher.items():
                values.add_(old[name], alpha=self.decay)
            self.penalties = []
        self.penalties.append((fisher, clone_shards(trainer.model)))

    def state_dict(self) -> dict[str, Any]:
        """The penalties, as local shards."""
        return {"penalties": self.penalties}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the penalties."""
        self.penalties = state["penalties"]
