"""How much rows are like text known to be good: their likelihood under a bigram model of it.

P(w | v) = b c(v, w) / c(v) + (1 - b) (c(w) + 1) / (n + V), with c the counts in the reference's rows, n its tokens, V
the vocabulary and b = BIGRAMS where v was seen, else 0. Pairs are counted in BUCKETS hashed buckets, so that the memory
does not grow with the reference (two pairs in one bucket are counted together: of 10M different pairs 45 % share one,
of 1M some 6 %). It depends on the data alone, so nothing of it has to be kept; time is linear in the tokens.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from clmed.data.corpus import Rows

BUCKETS = 1 << 24
BIGRAMS = 0.7
CHUNK = 4096  # rows read at a time


class Bigrams:
    """Counts of a reference's tokens and pairs of neighbours in one document."""

    def __init__(self, reference: Sequence[Rows], vocabulary: int) -> None:
        self.single = np.zeros(vocabulary)
        self.first = np.zeros(vocabulary)
        self.pairs = np.zeros(BUCKETS)
        for rows in reference:
            for tokens, before, real in _chunks(rows):
                joined = real & (before >= 0)
                self.single += np.bincount(tokens[real], minlength=vocabulary)
                self.first += np.bincount(before[joined], minlength=vocabulary)
                self.pairs += np.bincount(self._bucket(before[joined], tokens[joined]), minlength=BUCKETS)

    def log_likelihoods(self, rows: Rows) -> np.ndarray:
        """(rows,) mean natural-log probability of a token of each row."""
        found = []
        alone = (self.single + 1) / (self.single.sum() + len(self.single))
        for tokens, before, real in _chunks(rows):
            old = np.maximum(before, 0)
            seen = np.where(before >= 0, self.first[old], 0)
            share = np.where(seen > 0, BIGRAMS, 0.0)
            likely = share * self.pairs[self._bucket(old, tokens)] / np.maximum(seen, 1) + (1 - share) * alone[tokens]
            found.append((np.log(likely) * real).sum(axis=1) / np.maximum(real.sum(axis=1), 1))
        return np.concatenate(found)

    def _bucket(self, before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return (before.astype(np.int64) * len(self.single) + tokens) % BUCKETS


def _chunks(rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(tokens, the token before each or -1 at a document's start, whether it is one and no padding), (rows, length)."""
    for start in range(0, len(rows), CHUNK):
        part = rows.data[start : start + CHUNK]
        tokens = np.asarray(part["input_ids"])
        real = np.arange(tokens.shape[1]) < rows.tokens[start : start + CHUNK, None]
        before = np.concatenate([np.full((len(tokens), 1), -1), tokens[:, :-1]], axis=1)
        before[np.asarray(part["position_ids"]) == 0] = -1
        yield tokens, before, real
