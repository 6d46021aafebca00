"""Curriculum: several passes over the best part of the domain's text."""

from collections.abc import Mapping

import numpy as np

from clmed.data.corpus import Corpus, Rows
from clmed.data.quality import Bigrams
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import Phase


class Curriculum(Strategy):
    """Spend an experience's budget on several passes over the best rows of its text, instead of one over all of it.

    Of each source in `of` the share `keep` of the rows stays: those with the largest mean log-likelihood under a bigram
    model of the sources in `reference`, text of the domain that is known to be good (textbooks, exams). The budget, in
    tokens or in epochs of the whole text, stays what it is, so it makes 1/keep as many passes. Which rows stay depends
    on the data alone: nothing is stored.

    The recipe's third part, a mixture like that of pretraining, is `replay` beside it. What differs from the paper: its
    n-gram model is KenLM's, of higher order, and it ranks documents where here packed rows are ranked.

    Family: schedule
    Source: Guo et al., 2024, "Efficient Continual Pre-training by Mitigating the Stability Gap", arXiv 2406.14833
    Experimental: a shorter fall at the beginning has not been seen here; in MiniWorld, whose text holds no noise,
        it learnt less than naive training and forgot as much
    """

    reads = ("of", "reference")
    in_stream = ("of",)

    def __init__(self, *, of: list[str], reference: list[str], keep: float = 0.1) -> None:
        if not 0 < keep <= 1 or not of or not reference:
            raise UserError("curriculum needs a source in `of` and in `reference`, and a `keep` above 0 and up to 1.")
        if both := set(of) & set(reference):
            raise UserError(f"curriculum: {min(both)!r} stands in `of` and in `reference`: it would rank itself.")
        self.of, self.reference, self.keep = of, reference, keep
        self.kept: dict[str, Rows] = {}

    def sources(self, phase: Phase, corpus: Corpus) -> Mapping[str, Rows]:
        """The best rows, in the place of all, of those sources that the experience trains on."""
        missing = [name for name in self.of if name not in self.kept and name in phase.config.data]
        if missing:
            model = Bigrams([corpus.rows(name) for name in self.reference], len(corpus.tokenizer))
            self.kept |= {name: best(corpus.rows(name), model, self.keep) for name in missing}
        return {name: self.kept[name] for name in self.of if name in phase.config.data}


def best(rows: Rows, model: Bigrams, share: float) -> Rows:
    """The `share` of the rows (one at least) that the model finds likeliest, in their old order."""
    count = max(1, round(share * len(rows)))
    chosen = np.argsort(-model.log_likelihoods(rows), kind="stable")[:count]
    return rows.select(np.sort(chosen))
