"""Replay: keep rehearsing general text and past experiences."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from clmed.data.corpus import Corpus, Rows, balanced, reservoir
from clmed.data.mixture import Blend, share_out
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import Phase

PAST = "past"


class Replay(Strategy):
    """Mix a share of general text and of past experiences into every step.

    A step's rows are (1 - ratio) domain and ratio replay. The sources share the ratio in proportion to their
    sizes; the word `past` among them stands for a memory of at most `memory` rows of the earlier experiences' own data.
    `select` says which rows those are:

    reservoir  each with the same probability: the rows with the smallest keys, where a row's key is a random number
               that depends on the seed, the source and the row alone
    balanced   equally many of each earlier experience, from each a reservoir
    surprise   those with the highest mean token loss under the model with which the experience begins: what it has
               forgotten, or never learned

    The first two are functions of (seed, past experiences) and are never stored. The third takes a forward pass over
    the past; which rows it found is part of a checkpoint.

    Family: data
    Source: Ibrahim et al., 2024, "Simple and Scalable Strategies to Continually Pre-train", arXiv 2403.08763; surprise:
        Hazard et al., 2025, "SuRe: Surprise-Driven Prioritised Replay", arXiv 2511.22367 (without its dual learner)
    """

    follows = ("joint",)
    gives = "a part of each step"
    decides = ("what is replayed",)

    def __init__(
        self,
        *,
        ratio: float = 0.05,
        from_: list[str],
        memory: int = 1000,
        select: Literal["reservoir", "balanced", "surprise"] = "reservoir",
    ) -> None:
        if not 0 <= ratio < 1 or memory < 1 or not from_:
            raise UserError("replay needs 0 <= `ratio` < 1, a `memory` of at least 1 row and a source in `from`.")
        if select != "reservoir" and PAST not in from_:
            raise UserError(f"replay: `select: {select}` chooses rows of the past, so `from` must name `past`.")
        self.ratio, self.names, self.memory, self.select = ratio, from_, memory, select
        self.found: dict[str, Any] = {}  # the surprising rows, and the experience that they were found for

    def sources(self, phase: Phase, corpus: Corpus) -> Mapping[str, Rows]:
        """The memory of past experiences, where there are any; as many others in the place of surprising rows."""
        if PAST not in self.names or not phase.past:
            return {}
        groups = [{name: corpus.rows(name) for name in names} for names in phase.earlier]
        if self.select == "balanced":
            return {PAST: balanced(groups, self.memory, phase.seed)}
        return {
            PAST: reservoir({name: rows for group in groups for name, rows in group.items()}, self.memory, phase.seed)
        }

    def remember(self, trainer: Any) -> Mapping[str, Rows]:
        """The rows of the past that surprise the model most."""
        phase = trainer.experience.phase
        if self.select != "surprise" or not phase.past:
            return {}
        past = Rows.joined([trainer.corpus.rows(name) for name in phase.past])
        if self.found.get("experience") != phase.index:
            worst = np.argsort(-trainer.mean_losses(past), kind="stable")[: self.memory]
            self.found = {"experience": phase.index, "rows": torch.from_numpy(np.sort(worst))}
        rows: Tensor = self.found["rows"]
        return {PAST: past.select(rows.numpy())}

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with the replayed shares on top."""
        general = [name for name in self.names if name != PAST and name not in blend.domain]
        rows = {**{name: corpus.rows(name) for name in general}, **self.sources(phase, corpus)}
        sizes = {name: float(found.tokens.sum()) for name, found in rows.items()}
        return blend.add(mixed=share_out(self.ratio, sizes)) if sizes else blend

    def cost(self, size: Any) -> Mapping[str, float]:
        """The replayed tokens, on top of the domain's; and the pass that looks for surprising rows."""
        surprise = getattr(self, "select", "") == "surprise"  # of a subclass's parameters it may be none
        return {"tokens": size.domain_tokens * self.ratio / (1 - self.ratio), "read": size.past if surprise else 0}

    def state_dict(self) -> dict[str, Any]:
        """The surprising rows: the model that they surprised is gone."""
        return {"found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the surprising rows."""
        self.found = state["found"]
