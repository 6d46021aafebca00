"""Units against a slow reference that normalises every text as a whole and cuts it character by character."""

import random
import unicodedata

import numpy as np
import pytest

from clmed.data.units import units


def is_han(point: int) -> bool:
    return 0x3400 <= point <= 0x4DBF or 0x4E00 <= point <= 0x9FFF or point in (0x3005, 0x3007) or point >= 0x20000


def reference(text: str) -> list[str]:
    cut, word = [], ""
    for character in unicodedata.normalize("NFKC", text).lower() + " ":
        han = is_han(ord(character))
        if not han and unicodedata.category(character)[0] in "LMN":
            word += character
            continue
        cut += [word] if word else []
        cut += [character] if han and unicodedata.category(character)[0] in "LN" else []
        word = ""
    return cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("患者HIV阳性", ["患", "者", "hiv", "阳", "性"]),
        ("Ａ．ＷＨＯ　２０２６", ["a", "who", "2026"]),
        ("体温38.5℃…", ["体", "温", "38", "5", "c"]),
        ("don't STOP—now", ["don", "t", "stop", "now"]),
        ("，。！? …", []),
        ("", []),
    ],
)
def test_what_a_unit_is(text: str, expected: list[str]) -> None:
    assert reference(text) == expected
    one_by_one = units(expected)
    assert units([text]).codes.tolist() == one_by_one.codes.tolist() and len(one_by_one.codes) == len(expected)


def test_any_text_is_cut_as_the_reference_cuts_it() -> None:
    """Characters that compose, expand, or change their form beside others are what the tables cannot do alone."""
    draw = random.Random(0)
    ranges = [(32, 0x500), (0x1100, 0x1200), (0x2000, 0x2400), (0x3000, 0x3200), (0xAC00, 0xAC40), (0xFF00, 0xFFEF)]
    pool = [chr(point) for first, last in ranges for point in range(first, last)]
    pool += [chr(point) for point in (*range(0x4E00, 0x4E80), *range(0x20000, 0x20010), 0x1D400, 0x2F804, 0x1F600)]
    pool += [chr(0x3A3), chr(0xD800), chr(0x10FFFF)] * 20
    code_of: dict[str, int] = {}
    for _ in range(200):
        texts = ["".join(draw.choices(pool, k=draw.randrange(40))) for _ in range(draw.randrange(6))]
        cut = units(texts)
        for number, text in enumerate(texts):
            wanted, codes = reference(text), cut.codes[cut.bounds[number] : cut.bounds[number + 1]].tolist()
            assert len(codes) == len(wanted), ascii(text)
            assert all(code_of.setdefault(unit, code) == code for unit, code in zip(wanted, codes, strict=True))
            assert (cut.text[cut.bounds[number] : cut.bounds[number + 1]] == number).all()
    assert len(set(code_of.values())) == len(code_of) > 2000


def test_equal_stretches_have_equal_hashes_and_others_have_not() -> None:
    draw = random.Random(1)
    words = ["a", "b", "ab", "甲", "乙", "7"]
    texts = [" ".join(draw.choices(words, k=draw.randrange(30))) for _ in range(300)]
    cut = units(texts)
    for n in (1, 2, 5, 13):
        starts, hashes = cut.grams(n)
        wanted = [tuple(ref[i : i + n]) for ref in map(reference, texts) for i in range(len(ref) - n + 1)]
        assert len(hashes) == len(wanted)
        by_hash = dict(zip(hashes.tolist(), wanted, strict=True))
        assert [by_hash[value] for value in hashes.tolist()] == wanted and len(by_hash) == len(set(wanted))
        assert np.array_equal(cut.stretches(starts, n), hashes)
    assert len(set(cut.whole().tolist())) == len({tuple(reference(text)) for text in texts})
