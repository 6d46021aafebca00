"""Documents that repeat earlier ones, found in one pass over all sources in their order.

A *copy* has the same units as an earlier document (see clmed.data.units: case, punctuation and spacing do not count).
A *near copy* has at least 80 % of its 13-grams in earlier documents, whichever these are; documents with fewer than 8
13-grams (under 20 units) are compared whole only. Source: the filter of DCLM (Li et al., 2024, arXiv 2406.11794,
n-grams of 13 and a threshold of 0.8) and of Dolma (Soldaini et al., 2024, arXiv 2402.00159).

Earlier means earlier in the file, or in a source that stands before in the configuration. Documents are compared with
all earlier ones, dropped or not, so what is found depends on the texts and their order alone.

Memory: 30 bytes a document, and a Bloom filter of at most 256 MB for the 13-grams seen so far. It takes a false 13-gram
for seen once in 400, far from what the threshold needs. Where there are more than 134 million 13-grams (some 400 MB
of Chinese or 800 MB of English), one in 2, 4, 8, … is looked at, chosen by its hash.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from clmed.data.scanning import Batch
from clmed.data.units import Units

N = 13
THRESHOLD = 0.8
FEWEST = 8  # 13-grams that a document needs to be a near copy
MEMORY = 2**28  # bytes of the largest filter
BITS_A_GRAM = 16
PROBES = 4


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Record `number` repeats an earlier one: `of` is its (source, number), None for a near copy; share: of 13-grams
    that occur earlier."""

    number: int
    of: tuple[str, int] | None
    share: float


def find_duplicates(sources: Mapping[str, Iterable[Batch]], size: int) -> dict[str, list[Duplicate]]:
    """The duplicates of each source, in the order of its records; `size`: bytes of all texts, roughly."""
    names = list(sources)
    seen = SeenGrams(expected=size // 3)  # a Chinese character has three bytes, an English word more
    whole, numbers, owners, shares = array("Q"), array("q"), array("i"), array("f")
    for owner, batches in enumerate(sources.values()):
        for batch in batches:
            whole.frombytes(batch.units.whole().tobytes())
            numbers.extend(batch.numbers)
            owners.extend([owner] * len(batch.numbers))
            shares.frombytes(seen.shares(batch.units).astype(np.float32).tobytes())
    _, first, inverse = np.unique(np.asarray(whole), return_index=True, return_inverse=True)
    earlier = first[inverse]
    copies = (earlier < np.arange(len(whole))) & (np.asarray(whole) != 0)  # 0: nothing but punctuation
    found: dict[str, list[Duplicate]] = {name: [] for name in names}
    for index in np.flatnonzero(copies | (np.asarray(shares) >= THRESHOLD)):
        of = (names[owners[earlier[index]]], numbers[earlier[index]]) if copies[index] else None
        share = 1.0 if of else shares[index]
        found[names[owners[index]]].append(Duplicate(number=numbers[index], of=of, share=share))
    return found


class SeenGrams:
    """The 13-grams of all texts so far, in a Bloom filter (Bloom, 1970)."""

    def __init__(self, expected: int, memory: int = MEMORY) -> None:
        """expected: 13-grams that will come; memory: bytes of the largest filter, a power of two."""
        capacity = 8 * memory // BITS_A_GRAM
        self.every = 1 << max(0, -(-expected // capacity) - 1).bit_length()
        bits = BITS_A_GRAM * max(1, expected // self.every)
        self.table = np.zeros(min(memory, max(1024, 1 << (bits // 8).bit_length())), dtype=np.uint8)

    def shares(self, cut: Units) -> np.ndarray:
        """(texts,) the share of each text's 13-grams that earlier texts have, 0 for a text with few; they are added."""
        starts, hashes = cut.grams(N)
        if self.every > 1:
            kept = (hashes >> np.uint64(32)) % np.uint64(self.every) == 0
            starts, hashes = starts[kept], hashes[kept]
        text = cut.text[starts]
        known = self._holds(hashes)
        new = np.flatnonzero(~known)
        # Of what the filter does not know yet: has an earlier text of this batch got it?
        _, first, inverse = np.unique(hashes[new], return_index=True, return_inverse=True)
        known[new] = text[new[first]][inverse] < text[new]
        self._add(hashes[new])
        texts = len(cut.bounds) - 1
        every, some = np.bincount(text, minlength=texts), np.bincount(text[known], minlength=texts)
        return np.where(every >= FEWEST, some / np.maximum(every, 1), 0.0)

    def _places(self, hashes: np.ndarray) -> np.ndarray:
        """(PROBES, hashes) bits of the table, by double hashing (Kirsch and Mitzenmacher, 2006)."""
        step = (hashes >> np.uint64(32)) | np.uint64(1)
        return (hashes + np.arange(PROBES, dtype=np.uint64)[:, None] * step) & np.uint64(8 * len(self.table) - 1)

    def _holds(self, hashes: np.ndarray) -> np.ndarray:
        places = self._places(hashes)
        return (self.table[places >> np.uint64(3)] >> (places & np.uint64(7)).astype(np.uint8) & 1).all(axis=0)

    def _add(self, hashes: np.ndarray) -> None:
        places = self._places(hashes)
        bits = np.uint8(1) << (places & np.uint64(7)).astype(np.uint8)
        np.bitwise_or.at(self.table, places >> np.uint64(3), bits)
