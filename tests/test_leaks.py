"""What a run must not read: test questions, measured text, what only the base may know."""

from pathlib import Path

import pytest

from clmed import validation
from tests.configs import BASE, complaint, make_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with good files."""
    return make_folder(tmp_path, monkeypatch)


def test_a_leak_is_found_in_copies_links_and_hub_splits(folder: Path) -> None:
    (folder / "copy.csv").write_bytes((folder / "exams/test.csv").read_bytes())
    (folder / "link.csv").symlink_to(folder / "exams/test.csv")
    for name in ("copy.csv", "link.csv"):
        assert "leaks questions of the benchmark 'cmexam'" in complaint(f"data.exam.path={name}")
    hub = ["evaluation.gain.0.path=fzkuji/CMExam", "data.exam.path=fzkuji/CMExam"]
    assert "whose split test of fzkuji/CMExam it is" in complaint(*hub, "data.exam.split=test")
    validation.load("base.yaml", hub)


@pytest.mark.parametrize("split", ["test", "train+test", "test[:50%]", "train[:10%] + test[50%:]", "all"])
@pytest.mark.parametrize(
    ("benchmark", "path"),
    [
        ("cmexam", "fzkuji/CMExam"),
        ("mmlu", "cais/mmlu"),
        ("mmlu", "CAIS/mmlu"),
        ("cmmlu", "haonan-li/cmmlu"),
        ("cmmlu, path: me/copy", "me/copy"),
        ("medqa", "GBaker/MedQA-USMLE-4-options"),
        ("cases", "gbaker/medqa-usmle-4-options"),
        ("arc_easy", "allenai/ai2_arc"),
        ("multiple_choice, path: me/quiz", "me/quiz"),
    ],
)
def test_no_split_of_a_benchmark_on_the_hub_that_has_its_test(
    folder: Path, benchmark: str, path: str, split: str
) -> None:
    """A benchmark without a path is loaded from the hub."""
    overrides = [f"evaluation.gain=[{{benchmark: {benchmark}}}]", "evaluation.retention=[]", f"data.exam.path={path}"]
    assert f"whose split {split} of {path} it is" in complaint(*overrides, f"data.exam.split={split}")
    validation.load("base.yaml", [*overrides, "data.exam.split=train[:50%]"])


@pytest.mark.parametrize(
    ("benchmark", "path", "split"),
    [
        ("medmcqa", "openlifescienceai/medmcqa", "validation"),
        ("ceval", "ceval/ceval-exam", "val"),
        ("piqa", "baber/piqa", "train+validation"),
        ("pubmedqa", "qiaojin/PubMedQA", "train"),
        ("mmlu, split: validation", "cais/mmlu", "validation"),
    ],
)
def test_what_is_asked_may_be_another_split(folder: Path, benchmark: str, path: str, split: str) -> None:
    overrides = [f"evaluation.gain=[{{benchmark: {benchmark}}}]", "evaluation.retention=[]", f"data.exam.path={path}"]
    assert f"whose split {split} of {path} it is" in complaint(*overrides, f"data.exam.split={split}")
    validation.load("base.yaml", [*overrides, "data.exam.split=auxiliary"])


@pytest.mark.parametrize(
    ("benchmark", "file"),
    [
        ("ceval, path: ceval", "ceval/val/law_val.csv"),
        ("pubmedqa, path: pubmedqa", "pubmedqa/ori_pqal.json"),
        ("medmcqa, path: quiz/dev.json", "quiz/dev.json"),
        ("cases, of: cmexam, path: exams/test.csv", "exams/test.csv"),
        ("multiple_choice, path: quiz/mine.parquet", "quiz/mine.parquet"),
    ],
)
def test_files_of_every_kind_of_benchmark(folder: Path, benchmark: str, file: str) -> None:
    for name in ("ceval/val/law_val.csv", "pubmedqa/ori_pqal.json", "quiz/dev.json", "quiz/mine.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}\n", encoding="utf-8")
    (folder / "copy.csv").write_bytes((folder / file).read_bytes())
    gain = f"evaluation.gain=[{{benchmark: {benchmark}}}]"
    validation.load("base.yaml", [gain])
    for path in (file, "copy.csv"):
        assert f"data.exam leaks questions of the benchmark '{benchmark.split(',')[0]}'" in complaint(
            gain, f"data.exam.path={path}"
        )


def test_the_heldout_part_of_a_measured_source_is_nobodys_training_part(folder: Path) -> None:
    (folder / "copy.jsonl").write_bytes((folder / "general.jsonl").read_bytes())
    (folder / "link.jsonl").symlink_to("general.jsonl")
    for path in ("general.jsonl", "./general.jsonl", "link.jsonl", "copy.jsonl"):
        same = f"data.other={{path: {path}, format: text}}"
        validation.load("base.yaml", [same])
        for key, value in {"heldout": 0.1, "fisher": 0, "format": "qa", "text": "body"}.items():
            told = complaint(same, f"data.other.{key}={value}")
            assert told.startswith("command line: data.other leaks held-out text of 'general'")
            assert f"they differ in {key}" in told
        validation.load("base.yaml", [same, "data.other.heldout=0.1", "evaluation.retention=[]"])


def test_the_heldout_part_of_a_measured_source_of_the_hub(folder: Path) -> None:
    measured = "data.general={path: me/wiki, format: text, subset: en, split: 'train[:50%]'}"
    other = "data.other={path: me/wiki, format: text, subset: en, heldout: 0}"
    assert "data.other leaks held-out text of 'general'" in complaint(measured, other)
    for change in ("heldout=0.05", "subset=de", "split=validation", "path=me/news"):
        validation.load("base.yaml", [measured, other, f"data.other.{change}"])


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("stream.tuning.data=[exam, secret]", "stream[1].data"),
        ("evaluation.retention=[{perplexity: secret}]", "evaluation.retention[0].perplexity"),
        ("strategy.replay.from=[secret]", "strategy 'replay': from"),
        ("strategy.ewc.fisher_from=[general, secret]", "strategy 'ewc': fisher_from"),
    ],
)
def test_what_is_for_the_base_only_is_read_by_nothing_else(folder: Path, override: str, place: str) -> None:
    text = BASE.replace("tokenizer_from: general", "tokenizer_from: [general, secret]")
    text = text.replace("pretrain: {data: [general]", "pretrain: {data: [general, secret]")
    secret = "  secret: {path: general.jsonl, format: text, base_only: true}\n"
    (folder / "base.yaml").write_text(text.replace("stream:\n", f"{secret}stream:\n"), encoding="utf-8")
    validation.load("base.yaml")
    assert complaint(override) == (
        f"command line: {place}: 'secret' is marked base_only: only the making of the base model may read it"
    )


def test_the_word_past_is_for_strategies_with_a_memory(folder: Path) -> None:
    (folder / "own.py").write_text(
        "from clmed.strategies.replay import Replay\nfrom nowhere import Other\n"
        "class Mine(Replay): ...\nclass Unknown(Other): ...\n"
    )
    for name in ("replay", "own.py:Mine", "own.py:Unknown"):
        validation.load("base.yaml", [f"strategy={{{name}: {{from: [general, past]}}}}"])
    for name in ("interleave", "joint"):
        told = complaint(f"strategy.{name}.from=[general, past]")
        assert told.startswith(f"command line: strategy '{name}': from: no source 'past' in data (known: encyclopedia")
    told = complaint("strategy.ewc.fisher_from=[past]")
    assert told.endswith("fisher_from: no source 'past' in data; write `past: true` instead")


def test_a_text_all_of_which_is_measured_is_nobodys_source(folder: Path) -> None:
    (folder / "wiki.jsonl").write_text('{"text": "Karo."}\n')
    (folder / "copy.jsonl").write_bytes((folder / "wiki.jsonl").read_bytes())
    measured = "evaluation.retention=[{perplexity: wiki, path: wiki.jsonl}]"
    validation.load("base.yaml", [measured])
    for path in ("wiki.jsonl", "copy.jsonl"):
        told = complaint(measured, f"data.general.path={path}")
        assert "data.general leaks held-out text: all of wiki.jsonl is measured as 'wiki_perplexity'" in told
    hub = "evaluation.retention=[{perplexity: wiki, path: me/wiki}]"
    assert "leaks held-out text" in complaint(hub, "data.general={path: Me/wiki, format: text, split: train+test}")
    validation.load("base.yaml", [hub, "data.general={path: me/wiki, format: text}"])
    assert "no file or folder 'wikis.jsonl'" in complaint("evaluation.retention=[{perplexity: w, path: wikis.jsonl}]")
