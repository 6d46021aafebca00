"""Interleave: whole optimizer steps alternate between the domain and general text."""

from clmed.data.corpus import Corpus
from clmed.data.mixture import Blend, share_out
from clmed.strategy import Strategy
from clmed.stream import Phase


class Interleave(Strategy):
    """Alternate whole optimizer steps: of every `every` steps, one is general text and the others are the domain's.

    Where replay mixes both into each gradient, here each gradient is of one distribution. The general steps are spread
    evenly (in every run of `every` steps exactly one).

    Source: Chen et al., 2023, "HuatuoGPT-II", arXiv 2311.09774 (one-stage training; the fixed alternation is ours)
    """

    def __init__(self, *, every: int = 4, from_: list[str]) -> None:
        self.every, self.names = every, from_

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with 1/every of the steps given to the general sources."""
        sizes = {name: float(corpus.rows(name).tokens.sum()) for name in self.names}
        return blend.add(alternated=share_out(1 / self.every, sizes))
