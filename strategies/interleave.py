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

    Where replay mixes both into each gradient, here each gradient is of one distribution. With `priority: 1` the
    general steps are spread evenly: at no step are there more or fewer of them than their share, to one step. With a
    higher priority p they come rather early, so that an experience shifts from general text to the domain: of g general
    and d domain steps left, the next is a general one with weight p g against d. Their number stays the same.

    Family: data
    Source: Chen et al., 2023, "HuatuoGPT-II", arXiv 2311.09774 (one-stage training with priority sampling; that the
        steps follow its expectation to one step, and the even alternation, are ours)
    """

    follows = ("joint",)
    gives = "steps of its own"

    def __init__(self, *, every: int = 4, from_: list[str], priority: float = 1.0) -> None:
        if every < 2 or not from_ or priority <= 0:
            raise UserError(
                "interleave needs `every` of at least 2, at least one source in `from` and a `priority` above 0."
            )
        self.every, self.names, self.priority = every, from_, priority

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with 1/every of the steps given to the general sources."""
        names = [name for name in self.names if name not in blend.domain]
        sizes = {name: float(corpus.rows(name).tokens.sum()) for name in names}
        return blend.add(alternated=share_out(1 / self.every, sizes), priority=self.priority)

    def cost(self, size: Any) -> Mapping[str, float]:
        """The general steps, on top of the domain's."""
        return {"tokens": size.domain_tokens / (self.every - 1)}
