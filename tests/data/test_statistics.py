"""Statistics of a source against counts by hand."""

import json

import numpy as np
import pytest

from clmed.config import SourceConfig
from clmed.data.corpus import Corpus
from clmed.data.statistics import source_statistics
from clmed.data.tokenising import encode
from clmed.errors import UserError


@pytest.fixture
def make_corpus(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))

    def make(texts: list[str], length: int = 32, **changes) -> Corpus:
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        source = SourceConfig(path="a", **{"format": "text", **changes})
        return Corpus(sources={"a": source}, paths={"a": path}, tokenizer=tokenizer, length=length)

    return make


def test_counts_are_those_of_the_documents(make_corpus, tokenizer):
    texts = ["Karo lies on the river. " * number for number in range(1, 200)]
    found = source_statistics(make_corpus([*texts, " "], fisher=0.2, heldout=0.2), "a")
    sizes = np.array([len(document) for document in encode([[(text, True)] for text in texts], tokenizer)])
    assert set(found.parts) == {"train", "fisher", "heldout"}
    assert (found.total("documents"), found.skipped) == (199, 1)
    assert (found.total("tokens"), found.longest) == (sizes.sum(), sizes.max())
    assert found.total("bytes") == sum(len(text.encode()) for text in texts)
    for shortest, longest, documents in found.histogram:
        assert documents == ((sizes >= shortest) & (sizes <= longest)).sum()
    assert sum(documents for *_, documents in found.histogram) == 199
    assert found.histogram[-1][0] <= found.longest <= found.histogram[-1][1]
    assert found.utilisation == sizes.sum() / (found.total("rows") * 32)
    assert found.share_cut == 0 and found.fewest_rows == found.total("rows")  # texts go on in the next row


def test_what_is_cut_is_counted(make_corpus):
    found = source_statistics(make_corpus(["Karo", "because " * 40], format="qa", question="text", answer="text"), "a")
    assert (found.share_cut, found.total("cut"), found.total("untaught")) == (0.5, 1, 0)
    assert found.longest > 300 and found.total("tokens") < 64
    assert found.utilisation < 1 and found.fewest_rows == found.total("rows") == 2


def test_a_part_without_documents_is_left_out(make_corpus):
    assert set(source_statistics(make_corpus(["Karo"], fisher=0, heldout=0.01), "a").parts) == {"train"}
    with pytest.raises(UserError, match="no document of a falls in the part 'train'"):
        source_statistics(make_corpus([" "]), "a")
    with pytest.raises(UserError, match="no source 'b'"):
        source_statistics(make_corpus(["Karo"]), "b")


def test_how_full_the_rows_are_is_said(make_corpus):
    corpus = make_corpus(
        ["Karo lies on the river.", "because " * 40, "Vell"],
        format="qa",
        question="text",
        answer="text",
        heldout=0,
        fisher=0,
    )
    assert not list(corpus.packed())
    rows = corpus.rows("a")
    used = rows.tokens.sum() / (len(rows) * 32)
    (line,) = corpus.packed()
    assert line.startswith(f"data.a: 3 documents in {len(rows)} rows of 32, {used:.1%} of their positions used")
