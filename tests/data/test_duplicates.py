"""Copies and near copies against a comparison of all with all, on texts made for it."""

import random

import numpy as np
import pytest

from clmed.data.duplicates import FEWEST, THRESHOLD, Duplicate, SeenGrams, find_duplicates
from clmed.data.scanning import Batch
from clmed.data.units import units

WORDS = [f"w{number}" for number in range(500)]


def stream(texts: list[str], size: int) -> list[Batch]:
    def batch(start: int) -> Batch:
        part = texts[start : start + size]
        numbers = list(range(start + 1, start + 1 + len(part)))
        return Batch(numbers=numbers, records=[{}] * len(part), units=units(part), bytes=0)

    return [batch(start) for start in range(0, len(texts), size)]


def corpus(draw: random.Random, documents: int) -> list[str]:
    """Fresh texts, copies in another spelling, texts with some words changed, and pieces of two texts."""
    texts: list[str] = []
    for _ in range(documents):
        words = draw.choices(WORDS, k=draw.randrange(120))
        kind = draw.random()
        if texts and kind < 0.15:
            words = draw.choice(texts).upper().replace(" ", ", ").split()
        elif texts and kind < 0.4:
            words = draw.choice(texts).split()
            for place in range(len(words)):
                if draw.random() < 0.02:
                    words[place] = draw.choice(WORDS)
        elif len(texts) > 1 and kind < 0.5:
            words = draw.choice(texts).split()[:40] + draw.choice(texts).split()[:40]
        texts.append(" ".join(words))
    return texts


def reference(texts: list[str]) -> dict[int, tuple[int | None, float]]:
    """number -> (the number of the copied text or None, share), by sets of tuples."""
    found: dict[int, tuple[int | None, float]] = {}
    wholes: dict[tuple[str, ...], int] = {}
    seen: set[tuple[str, ...]] = set()
    for number, text in enumerate(texts, start=1):
        cut = tuple(text.lower().replace(",", "").split())
        grams = [cut[i : i + 13] for i in range(len(cut) - 12)]
        share = sum(gram in seen for gram in grams) / len(grams) if len(grams) >= FEWEST else 0.0
        if cut and cut in wholes:
            found[number] = (wholes[cut], 1.0)
        elif share >= THRESHOLD:
            found[number] = (None, share)
        wholes.setdefault(cut, number)
        seen.update(grams)
    return found


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_copies_and_near_copies_are_those_of_the_definition(size: int) -> None:
    texts = corpus(random.Random(size), 400)
    wanted = reference(texts)
    found = find_duplicates({"a": stream(texts, size)}, size=sum(map(len, texts)))["a"]
    told = {copy.number: (copy.of[1] if copy.of else None, pytest.approx(copy.share, abs=0.01)) for copy in found}
    assert told == wanted
    assert {of is None for of, _ in wanted.values()} == {True, False}


def test_a_later_source_repeats_an_earlier_one() -> None:
    one, other = "甲乙丙丁", "The same text, twice."
    later = ["the SAME text: twice", "!", "!", "new", "甲乙丙丁。"]
    found = find_duplicates({"a": stream([one, other], 1), "b": stream(later, 2)}, 100)
    assert found == {
        "a": [],
        "b": [Duplicate(number=1, of=("a", 2), share=1.0), Duplicate(number=5, of=("a", 1), share=1.0)],
    }


def test_the_filter_of_a_large_corpus_has_its_limit_and_looks_at_fewer_grams() -> None:
    assert len(SeenGrams(expected=10**12).table) == 2**28
    seen = SeenGrams(expected=64 * 2**12, memory=2**13)  # 2**12 13-grams fit: one in 64 is looked at
    assert (seen.every, len(seen.table)) == (64, 2**13)
    draw = random.Random(0)
    text = " ".join(draw.choices(WORDS, k=5000))
    other = " ".join(draw.choices(WORDS, k=5000))
    assert seen.shares(units([text])).tolist() == [0.0]
    assert seen.shares(units([other, text])).tolist() == [pytest.approx(0.0, abs=0.05), 1.0]


def test_false_memories_are_as_rare_as_promised() -> None:
    seen = SeenGrams(expected=200_000)
    hashes = np.random.default_rng(0).integers(0, 2**64, size=400_000, dtype=np.uint64)
    seen._add(hashes[:200_000])
    assert seen._holds(hashes[:200_000]).all()
    assert seen._holds(hashes[200_000:]).mean() < 1 / 400
