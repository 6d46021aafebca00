"""Interleave: whole optimizer steps alternate between the domain and general text."""

from collections.abc import Mapping
from typing import Any

from clmed.data.corpus import Corpus
from clmed.data.mixture import Blend, share_out
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import Phase


class Interleave(Strategy):
    """Alternate whole optimizer steps: of every `every` steps, one is general text and the others are the domain's.

    Where replay mixes both into each gradient, here each gradient is of one distribution. The general steps are spread
    evenly: at no step are there more or fewer of them than their share, to one step.

    Family: data
    Source: Chen et al., 2023, "HuatuoGPT-II", arXiv 2311.09774 (one-stage training; the fixed alternation is ours)
    """

    def __init__(self, *, every: int = 4, from_: list[str]) -> None:
        if every < 2 or not from_:
            raise UserError("interleave needs `every` of at least 2 and at least one source in `from`.")
        self.every, self.names = every, from_

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with 1/every of the steps given to the general sources."""
        names = [name for name in self.names if name not in blend.domain]
        sizes = {name: float(corpus.rows(name).tokens.sum()) for name in names}
        return blend.add(alternated=share_out(1 / self.every, sizes))

    def cost(self, size: Any) -> Mapping[str, float]:
        """The general steps, on top of the domain's."""
        return {"tokens": size.domain_tokens / (self.every - 1)}
