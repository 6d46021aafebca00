import copy
import json
import logging
import multiprocessing
import random
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from clmed.config import SourceConfig
from clmed.data import formats
from clmed.data import rows as rows_module
from clmed.data.cache import build_once, cache_dir
from clmed.data.rows import Counts, counts, document_texts, part_of, prepare, source_fingerprint
from clmed.data.sources import records
from clmed.data.tokenising import Encoder, encode
from clmed.errors import UserError

WORDS = ["Karo", "Vell", "harbour", "river", "桂枝", "甘草", "capital", "of", "the", "is"]


def make_texts(number: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 40))) + f" {n}." for n in range(number)]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def text_source(**changes) -> SourceConfig:
    return SourceConfig(path="given", format="text", **changes)


def test_the_parts_are_disjoint_and_complete_and_of_the_right_size(tmp_path):
    every = make_texts(2000)
    path = write_jsonl(tmp_path / "a.jsonl", every)
    source = text_source(fisher=0.1, heldout=0.2)
    parts = {part: list(document_texts("a", source, path, part)) for part in ("train", "fisher", "heldout")}
    assert sorted(text for texts in parts.values() for text in texts) == sorted(every)
    assert len(parts["fisher"]) == pytest.approx(200, abs=50) and len(parts["heldout"]) == pytest.approx(400, abs=70)
    # Whatever is added, and in whatever order: a document stays in its part.
    path = write_jsonl(tmp_path / "b.jsonl", make_texts(500, seed=1) + every[::-1])
    assert set(parts["heldout"]) <= set(document_texts("b", source, path, "heldout"))


def test_copies_of_a_text_land_in_one_part():
    source = text_source(fisher=0.3, heldout=0.3)
    composed = [f"café {number}" for number in range(100)]
    spelled = [unicodedata.normalize("NFD", text) for text in composed]
    assert composed != spelled
    assert [part_of(text, source) for text in composed] == [part_of(text, source) for text in spelled]
    assert {part_of(text, source) for text in composed} == {"train", "fisher", "heldout"}
    assert {part_of(text, text_source(fisher=0, heldout=0)) for text in composed} == {"train"}


@pytest.mark.parametrize("form", ["text", "qa"])
def test_counts_and_rows_are_those_of_the_documents(tmp_path, tokenizer, form):
    every = make_texts(300)
    path = write_jsonl(tmp_path / "a.jsonl", [*every, "", " \n"])
    source = SourceConfig(path="given", format=form, text="text", question="text", answer="text")
    tally, documents = Counts(), 0
    for part in ("train", "fisher", "heldout"):
        rows = prepare("a", source, path, part, tokenizer, 500, cache=tmp_path / "cache")
        assert rows.column_names == [
            *("input_ids", "position_ids", "labels", "weights"),
            *("tokens", "supervised", "mass", "bytes"),
        ]
        assert len(rows[0]["labels"]) == 500 and isinstance(rows[0]["labels"], np.ndarray)
        found = counts(rows)
        for name in ("tokens", "supervised", "bytes"):
            assert rows[name][:].sum() == getattr(found, name)
            setattr(tally, name, getattr(tally, name) + getattr(found, name))
        assert found.skipped == 2 and found.rows == len(rows)
        documents += found.documents
    pieces = [formats.texts(source, record) for _, record in records(source, path)]
    encoded = encode([each for each in pieces if each], tokenizer)
    assert documents == len(encoded) == 300
    assert tally.tokens == sum(map(len, encoded))
    assert tally.bytes == sum(len(text.encode()) for each in pieces for text, _ in each)
    if form == "qa":
        assert tally.supervised == tally.tokens - 300


def test_rows_lie_on_disk_in_lists_of_fixed_size(tmp_path, tokenizer):
    rows = prepare(
        "a", text_source(), write_jsonl(tmp_path / "a.jsonl", make_texts(50)), "train", tokenizer, 64, tmp_path
    )
    feature = rows.features["input_ids"]
    assert (feature.length, feature.feature.dtype) == (64, "int32")
    assert rows.cache_files and Path(rows.cache_files[0]["filename"]).is_relative_to(tmp_path)


def test_rows_are_made_once_per_content_and_configuration(tmp_path, tokenizer, monkeypatch):
    made = []
    monkeypatch.setattr(rows_module, "Encoder", lambda *args, **more: made.append(1) or Encoder(*args, **more))
    path = write_jsonl(tmp_path / "a.jsonl", make_texts(100))

    def rows(path=path, length=64, part="train", tokenizer=tokenizer, **changes) -> bool:
        """Whether they had to be made."""
        made.clear()
        prepare("a", text_source(**changes), path, part, tokenizer, length, cache=tmp_path / "cache")
        return bool(made)

    assert rows()
    assert not rows()
    assert not rows(path=path.rename(tmp_path / "moved.jsonl"))
    moved = tmp_path / "moved.jsonl"
    assert rows(moved, length=65) and rows(moved, part="heldout") and rows(moved, heldout=0.2)
    tokenizer(["a", "bb"], padding=True)  # leaves its setting in the tokenizer, which is the same for all that
    assert not rows(moved)
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["harbour"])
    assert rows(moved, tokenizer=other)
    write_jsonl(moved, make_texts(101))
    assert rows(moved)


def test_the_fingerprint_of_a_source_tells_content_and_reading(tmp_path):
    one = write_jsonl(tmp_path / "a.jsonl", make_texts(3))
    two = write_jsonl(tmp_path / "b.jsonl", make_texts(3))
    other = write_jsonl(tmp_path / "c.jsonl", make_texts(4))
    assert source_fingerprint(text_source(), one) == source_fingerprint(text_source(), two)
    assert source_fingerprint(text_source(), one) != source_fingerprint(text_source(), other)
    assert source_fingerprint(text_source(), one) != source_fingerprint(text_source(heldout=0.1), one)


def test_a_failure_leaves_nothing_behind(tmp_path, tokenizer):
    path = write_jsonl(tmp_path / "a.jsonl", make_texts(100))
    path.write_text(path.read_text() + '{"text": \n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 101"):
        prepare("a", text_source(), path, "train", tokenizer, 64, cache=tmp_path / "cache")
    assert [each.suffix for each in (tmp_path / "cache" / "rows").iterdir()] == [".lock"]


def test_what_is_left_out_is_told(tmp_path, tokenizer, caplog, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nWhere?,Karo\nWhere?,\n" + "Why?," + "because " * 40 + "\n" + "x" * 300 + ",y\n")
    source = SourceConfig(path="a.csv", format="qa", fisher=0, heldout=0)
    with caplog.at_level(logging.WARNING):
        rows = prepare("a", source, path, "train", tokenizer, 64, cache=tmp_path / "cache")
    assert "data.a: 1 records without text were left out; 2 of 3 documents were cut at 64 tokens" in caplog.text
    found = counts(rows)
    assert (found.documents, found.skipped, found.cut, found.untaught) == (3, 1, 2, 0)
    caplog.clear()
    monkeypatch.setenv("RANK", "1")
    prepare("a", source, path, "train", tokenizer, 64, cache=tmp_path / "cache")
    assert not caplog.text


BAD = {
    "letter": (
        "Question,Options,Answer\n甲？,A 乙,A\n丙？,A 丁,B\n",
        {},
        "line 3: the answer 'B' is no letter of the options A",
    ),
    "options": ("Question,Options,Answer\n甲？,乙,A\n", {}, "line 2: the options do not begin with a letter"),
    "part": ("Question,Options,Answer\n甲？,A 乙,A\n", {"fisher": 0}, "falls in the part 'fisher', whose share is 0"),
    "all-skipped": (
        "Question,Options,Answer\n甲？,A 乙,nan\n",
        {},
        "the part 'fisher', whose share is 0.99 (1 records have",
    ),
    "too-long": (f"Question,Options,Answer\n{'甲' * 300},A 乙,A\n", {}, "nothing to learn in rows of 64 tokens"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused(tmp_path, tokenizer, name):
    content, changes, message = BAD[name]
    path = tmp_path / "exam.csv"
    path.write_text(content)
    source = SourceConfig(path="exam.csv", format="exam", **{"heldout": 0, "fisher": 0.99, **changes})
    with pytest.raises(UserError) as error:
        prepare("exam", source, path, "fisher", tokenizer, 64, cache=tmp_path / "cache")
    assert message in str(error.value) and "exam" in str(error.value) and "\n" not in str(error.value)


def test_half_a_character_is_refused_with_its_line(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Karo"}\n{"text": "Karo \\ud83d"}\n')  # JSON can spell what is no text
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: .*surrogates not allowed"):
        prepare("a", text_source(), path, "train", tokenizer, 64, cache=tmp_path / "cache")


def _build(folder: Path, journal: Path) -> None:
    def make(partial: Path) -> None:
        with journal.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        (partial / "data").write_text("whole")

    build_once(folder, make)
    assert (folder / "data").read_text() == "whole"


def test_several_processes_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_build, args=(tmp_path / "made", tmp_path / "journal")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "journal").read_text() == "made\n"


def test_without_locks_the_first_wins(tmp_path, monkeypatch):
    import errno
    import fcntl

    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)

    def make(partial: Path) -> None:
        (partial / "data").write_text("second")
        (tmp_path / "made").mkdir()  # another process is faster
        (tmp_path / "made" / "data").write_text("first")

    assert (build_once(tmp_path / "made", make) / "data").read_text() == "first"
    assert not list(tmp_path.glob("*.partial"))


def test_a_cache_that_cannot_be_written_is_a_user_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write the cache folder .*set CLMED_CACHE"):
        build_once(cache_dir() / "rows" / "x", lambda partial: None)


MEMORY = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
from clmed.config import SourceConfig
from clmed.data import packing, workers
from clmed.data.corpus import Rows
from clmed.data.rows import prepare

packing.WINDOW, workers.LEAD = 2**16, 4  # so that the small corpus is many times what may wait
if __name__ == "__main__":
    peaks = []
    for name in ("small", "large"):
        source = SourceConfig(path="x", format={form!r}, question="text", answer="text")
        tokenizer = PreTrainedTokenizerFast.from_pretrained({folder!r})
        path = Path({folder!r}) / f"{{name}}.jsonl"
        rows = prepare(name, source, path, "train", tokenizer, 256, cache=Path({folder!r}), workers={workers})
        assert Rows.of(rows).tokens.sum() > 200_000
        # Not ru_maxrss: a new process inherits it from its parent.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peaks.append(int(status["VmHWM"].split()[0]) / 1024)
    print(*peaks)
"""


@pytest.mark.parametrize(("form", "workers"), [pytest.param("text", 1, marks=pytest.mark.full), ("qa", 1), ("text", 2)])
def test_memory_does_not_grow_with_the_corpus(tmp_path, tokenizer, form, workers):
    """Ten times the corpus, 70 MB more of rows and as much of documents, needs no more than 40 MB more: the tokenizer
    remembers words, and the memory of large batches frays a little (20 to 30 MB here, and hardly more afterwards)."""
    tokenizer.save_pretrained(tmp_path)
    every = make_texts(80_000)
    write_jsonl(tmp_path / "small.jsonl", every[:8_000])
    write_jsonl(tmp_path / "large.jsonl", every)
    script = tmp_path / "memory.py"
    script.write_text(MEMORY.format(folder=str(tmp_path), form=form, workers=workers))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small, large = map(float, done.stdout.split())
    assert large - small < 40, (small, large)


ALL = {"fisher": 0.0, "heldout": 0.0}
REAL = {
    "cmexam/train.csv": (SourceConfig(path="x", format="exam", target="explanation_then_answer", **ALL), 4999, 1),
    "medical/cmedqa2.jsonl": (SourceConfig(path="x", format="qa", **ALL), 4000, 0),
    "general/alpaca_zh.jsonl": (
        SourceConfig(path="x", format="qa", question="instruction", answer="output", **ALL),
        1000,
        0,
    ),
    "general/wikipedia_en.jsonl": (SourceConfig(path="x", format="text", **ALL), 30, 0),
    "general/c4_sample.jsonl": (SourceConfig(path="x", format="text", **ALL), 300, 0),
    "medical/pubmedqa/ori_pqal.json": (SourceConfig(path="x", format="text", text="LONG_ANSWER", **ALL), 1000, 0),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_go_through_without_loss(real_data, tokenizer, tmp_path, name):
    source, documents, skipped = REAL[name]
    rows = prepare("real", source, real_data / name, "train", tokenizer, 16_000, cache=tmp_path)
    found = counts(rows)
    assert (found.documents, found.skipped, found.cut, found.untaught) == (documents, skipped, 0, 0)
    texts = list(document_texts("real", source, real_data / name, "train"))
    assert found.bytes == sum(len(text.encode()) for text in texts)
    # Every text can be read from the rows again, with its end.
    written = tokenizer.decode(np.concatenate([row["input_ids"][: row["tokens"]] for row in rows]))
    if source.format == "text":
        assert written == "".join(f"{text}</s>" for text in texts)
    else:
        assert sorted(written.split("</s>")[:-1]) == sorted(texts)
