"""Sources that are cleaned: what is dropped, what rows are then made of, and that nothing forgets to ask."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clmed.config import ExperimentConfig
from clmed.data.cleaning import Searched, copies_in, left_out, touches_in
from clmed.data.contamination import Asked
from clmed.data.corpus import Corpus
from clmed.data.rows import counts, document_texts
from tests.small import small_config

STEM = "The patient coughs at night, has lost weight and comes from a mine in the north: what is done first?"
QUESTION = Asked(benchmark="exam", subject="all", index=4, stem=STEM, options=("sputum", "X-ray"), right=(0,))


def write(path: Path, texts: Sequence[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources of 200 texts each; the second repeats ten of the first, and holds the question in its last two."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    first = [f"Document number {number} of the first source says {number * number}." for number in range(200)]
    second = [f"Document number {number} of the other source says {number * number}." for number in range(188)]
    write(tmp_path / "first.jsonl", first)
    write(tmp_path / "second.jsonl", [*first[:10], *second, f"He said: {STEM}", STEM.upper()])
    return tmp_path


def config(folder: Path, **second: Any) -> ExperimentConfig:
    text = {"format": "text"}
    return small_config(
        {},
        data_root=str(folder),
        data={"first": {"path": "first.jsonl", **text}, "second": {"path": "second.jsonl", **text, **second}},
        stream=[{"name": "one", "data": ["second"], "epochs": 1, "optimizer": {"lr": 1e-3}}],
        evaluation={"gain": [{"benchmark": "cmexam", "path": "test.csv"}]},
    )


def test_what_is_dropped_is_what_repeats_and_what_touches_a_question(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert left_out(config(folder), Searched([])) == {}
    twice = left_out(config(folder, deduplicate=True), Searched([]))
    assert twice == {"second": frozenset({*range(1, 11), 200})}  # all words of 200 are in 199
    assert left_out(config(folder, decontaminate=True), Searched([QUESTION])) == {"second": frozenset({199, 200})}
    with caplog.at_level(logging.WARNING, logger="clmed"):
        both = left_out(config(folder, deduplicate=True, decontaminate=True), Searched([QUESTION]))
    assert both == {"second": frozenset({*range(1, 11), 199, 200})}
    assert "data.second: 11 documents that repeat earlier ones and 1 with text of benchmark questions" in caplog.text


def test_rows_hold_everything_but_what_is_dropped(folder: Path, tokenizer: Any) -> None:
    settings = config(folder, deduplicate=True, decontaminate=True)
    dropped = left_out(settings, Searched([QUESTION]))
    path = folder / "second.jsonl"
    every = list(document_texts("second", settings.data["second"], path, "train"))
    kept = [text for text in every if "first source" not in text and STEM.lower() not in text.lower()]
    rows = Corpus.of(settings, tokenizer, 64, dropped).rows("second")
    read = tokenizer.decode(np.concatenate(rows.data["input_ids"][:]), skip_special_tokens=True)
    assert sorted(read.replace("says", "\n").split()) == sorted("".join(kept).replace("says", "\n").split())
    assert counts(rows.data).dropped == 12 and len(kept) < len(every)
    plain = Corpus.of(config(folder), tokenizer, 64).rows("second")
    assert int(plain.tokens.sum()) > int(rows.tokens.sum())


def test_a_corpus_that_nobody_has_cleaned_is_not_trained_on(folder: Path, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.second is to be cleaned"):
        Corpus.of(config(folder, deduplicate=True), tokenizer, 64)
    Corpus.of(config(folder, deduplicate=True), tokenizer, 64, {"second": frozenset()})


def test_what_was_found_is_kept_until_a_file_or_a_question_changes(folder: Path) -> None:
    settings = config(folder)
    seen: list[str] = []

    def watch(what: str, batches: Any) -> Any:
        seen.append(what)
        return batches

    for _ in range(2):
        found = touches_in(settings, "second", Searched([QUESTION]), watch)
        copies = copies_in(settings, ["first", "second"], watch)
    assert [(touch.number, touch.part, touch.share, touch.whole) for touch in found] == [
        (199, found[0].part, 1.0, True),
        (200, found[1].part, 1.0, True),
    ]
    assert [copy.of for copy in copies["second"]] == [*(("first", number) for number in range(1, 11)), None]
    assert seen == [
        "looking for test questions in second",
        "looking for duplicates in first",
        "looking for duplicates in second",
    ]
    assert not touches_in(settings, "second", Searched([]), watch)
    write(folder / "second.jsonl", ["new"])
    assert not touches_in(settings, "second", Searched([QUESTION]), watch)
    assert len(seen) == 5


def test_all_that_an_exam_source_holds_is_searched(folder: Path) -> None:
    """Trained on by text it shows the right option alone, but who knows the record knows the question."""
    (folder / "exam.csv").write_text(
        'Question,Options,Answer\nureter,"A begins at the kidney\nB ends in the bladder\'s neck",B\nx,A y,A\n'
    )
    exam = {"path": "exam.csv", "format": "exam", "answer_as": "text"}
    settings = config(folder).model_copy(update={"data": {"exam": type(config(folder).data["first"])(**exam)}})
    question = Asked(
        benchmark="exam",
        subject="all",
        index=0,
        stem="Ureter",
        options=("begins at the kidney", "ends in the bladder's neck"),
        right=(0,),
    )
    assert [touch.number for touch in touches_in(settings, "exam", Searched([question]))] == [2]
