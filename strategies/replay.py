"""Replay: keep rehearsing general text and past experiences."""

from collections.abc import Mapping
from typing import Any

from clmed.data.corpus import Corpus, Rows, reservoir
from clmed.data.mixture import Blend, share_out
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import Phase

PAST = "past"


class Replay(Strategy):
    """Mix a share of general text and of past experiences into every step.

    A step's rows are (1 - ratio) domain and ratio replay. The sources share the ratio in proportion to their
    sizes; the word `past` among them stands for a memory of at most `memory` rows of the earlier experiences' own data.

    The memory is an exact reservoir (each row of the past is in it with the same probability): the rows with the
    smallest keys, where a row's key is a random number that depends on the seed, the source and the row alone. So it
    is a function of (seed, past experiences) and is never stored.

    Family: data
    Source: Ibrahim et al., 2024, "Simple and Scalable Strategies to Continually Pre-train", arXiv 2403.08763
    """

    def __init__(self, *, ratio: float = 0.05, from_: list[str], memory: int = 1000) -> None:
        if not 0 <= ratio < 1 or memory < 1 or not from_:
            raise UserError(
                "replay needs a `ratio` from 0 to below 1, a `memory` of at least 1 row and a source in `from`."
            )
        self.ratio, self.names, self.memory = ratio, from_, memory

    def sources(self, phase: Phase, corpus: Corpus) -> Mapping[str, Rows]:
        """The memory of past experiences, where there are any."""
        if PAST not in self.names or not phase.past:
            return {}
        return {PAST: reservoir({name: corpus.rows(name) for name in phase.past}, self.memory, phase.seed)}

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with the replayed shares on top."""
        general = [name for name in self.names if name != PAST and name not in blend.domain]
        rows = {**{name: corpus.rows(name) for name in general}, **self.sources(phase, corpus)}
        sizes = {name: float(found.tokens.sum()) for name, found in rows.items()}
        return blend.add(mixed=share_out(self.ratio, sizes)) if sizes else blend

    def cost(self, size: Any) -> Mapping[str, float]:
        """The replayed tokens, on top of the domain's."""
        return {"tokens": size.domain_tokens * self.ratio / (1 - self.ratio)}
