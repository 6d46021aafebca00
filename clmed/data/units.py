"""Text as a sequence of units, and the hashes of its n-grams: what duplicates and test questions are found by.

A text is NFKC-normalised and lower-cased; punctuation, symbols and white space go. What is left is cut by runs: each
Chinese character is a unit, and so is each run of other letters, marks and digits (a word, a number). A mixed text is
one sequence ("患者HIV阳性" is 患 者 hiv 阳 性, five units), so that an n-gram may cross from one script to the other.

The hash of a stretch of units is a polynomial in an odd base modulo 2^64 over random codes, read from prefix sums: the
hash of every stretch of any length costs two look-ups, and all of it is done by numpy for many texts at once.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

# 5 modulo 8: the powers of such a base have the longest period modulo 2^64.
_WORD_BASE, _UNIT_BASE = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED05
_SEPARATOR, _WORD, _HAN = range(3)
_POINTS = 0x40000  # beyond this code point there are no letters
_HAN_RANGES = (
    (0x3005, 0x3005),
    (0x3007, 0x3007),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFE),
)
# Korean letters that join to syllables, and the sigma, whose small form depends on its place in the word.
_HARD = {*range(0x1100, 0x1200), ord("Σ")}


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of several texts, one after the other.

    codes: (units,) uint64, a hash of each; text: (units,) int64, the text it belongs to; bounds: (texts + 1,) int64,
    the first unit of each text, and their number.
    """

    codes: np.ndarray
    text: np.ndarray
    bounds: np.ndarray
    _sums: np.ndarray

    def stretches(self, starts: np.ndarray, lengths: np.ndarray | int) -> np.ndarray:
        """uint64 hashes of the stretches of `lengths` units from `starts` on; equal stretches have equal hashes."""
        return _stretches(self._sums, starts, starts + lengths, _UNIT_BASE)

    def whole(self) -> np.ndarray:
        """(texts,) the hash of each text; that of a text without units is 0."""
        return self.stretches(self.bounds[:-1], np.diff(self.bounds))

    def rolling(self, n: int) -> np.ndarray:
        """The hashes of all stretches of n units, one from each unit on, across the borders of texts as well."""
        count = max(len(self.codes) - n + 1, 0)
        return (self._sums[n : n + count] - self._sums[:count]) * _powers(pow(_UNIT_BASE, -1, 2**64), count)

    def within(self, starts: np.ndarray, n: int) -> np.ndarray:
        """Those of `starts` from which n units on belong to one text."""
        starts = starts[starts + n <= len(self.codes)]
        return starts[self.text[starts] == self.text[starts + n - 1]]

    def grams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(starts, hashes) of all n-grams that lie within one text."""
        starts = self.within(np.arange(len(self.codes)), n)
        return starts, self.rolling(n)[starts]


def units(texts: Sequence[str]) -> Units:
    """Cut `texts` into units."""
    points, firsts = _points(_normal_enough(texts))
    tables = _tables()
    kind = tables.kind[points]
    word = kind == _WORD
    begins_word = word.copy()
    begins_word[1:] &= ~word[:-1]
    starts = np.flatnonzero((kind == _HAN) | begins_word)
    ends = starts + 1
    ends[word[starts]] = np.flatnonzero(word[:-1] & ~word[1:]) + 1  # a separator follows every text, also the last
    codes = _stretches(_prefix_sums(tables.code[points], _WORD_BASE), starts, ends, _WORD_BASE)
    bounds = np.searchsorted(starts, firsts)
    text = np.repeat(np.arange(len(texts)), np.diff(bounds))
    return Units(codes=codes, text=text, bounds=bounds, _sums=_prefix_sums(codes, _UNIT_BASE))


def _points(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The code points of all texts, a line end after each, and where each text begins (with the end of the last)."""
    joined = "".join(f"{text}\n" for text in texts)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.minimum(points, _POINTS - 1), np.cumsum([0, *(len(text) + 1 for text in texts)])


def _normal_enough(texts: Sequence[str]) -> Sequence[str]:
    """The texts, those normalised in which characters act on one another; the tables do the rest, many times faster."""
    points, firsts = _points(texts)
    hard = np.flatnonzero(_tables().hard[points])
    if not len(hard):
        return texts
    changed = set(np.searchsorted(firsts, hard, side="right") - 1)
    return [normal(text) if index in changed else text for index, text in enumerate(texts)]


def normal(text: str) -> str:
    """NFKC, lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def _prefix_sums(codes: np.ndarray, base: int) -> np.ndarray:
    """sums[i] = sum of codes[j] * base^j for j < i, modulo 2^64."""
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum(codes * _powers(base, len(codes)), out=sums[1:])
    return sums


def _stretches(sums: np.ndarray, starts: np.ndarray, ends: np.ndarray, base: int) -> np.ndarray:
    """Hashes that do not depend on where a stretch begins: its sum, divided by base^start."""
    return (sums[ends] - sums[starts]) * _powers(pow(base, -1, 2**64), len(sums))[starts]


_grown: dict[int, np.ndarray] = {}


def _powers(base: int, count: int) -> np.ndarray:
    """(count,) uint64: base^0, base^1, …; kept, and grown when more are asked for."""
    known = _grown.get(base)
    if known is None or len(known) < count:
        size = 1 << max(count - 1, 0).bit_length()
        known = np.full(size, base, dtype=np.uint64)
        known[0] = 1
        _grown[base] = np.cumprod(known, dtype=np.uint64)
    return _grown[base][:count]


class _Tables(NamedTuple):
    """By code point, of the character in its normal form: what kind it is, and its random code; hard: whether that form
    is not one character, or depends on the characters around it."""

    kind: np.ndarray
    code: np.ndarray
    hard: np.ndarray


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    kind = np.full(_POINTS, _SEPARATOR, dtype=np.uint8)
    hard = np.zeros(_POINTS, dtype=bool)
    form = np.arange(_POINTS)
    for point in range(0x20000):
        character = normal(chr(point))
        if len(character) == 1:
            form[point] = ord(character)
        categories = {unicodedata.category(one)[0] for one in character}
        is_word = not categories.isdisjoint("LMN")
        hard[point] = (is_word and len(character) > 1) or "M" in categories or point in _HARD
        kind[point] = _WORD if is_word else _SEPARATOR
    for first, last in _HAN_RANGES:
        kind[first : last + 1] = _HAN
    hard[0x2F800:0x2FA20] = True  # compatibility forms of characters elsewhere
    code = np.random.Generator(np.random.PCG64(0)).integers(1, 2**64, size=_POINTS, dtype=np.uint64, endpoint=False)
    return _Tables(kind[form], code[form], hard)
