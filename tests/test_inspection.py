"""`clmed data inspect` on an experiment in which something is wrong with each of the sources."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clmed.data import miniworld
from tests.command import TINY, in_process


@pytest.fixture
def leaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment file: medical text twice over, and an exam that has test questions and hardly an answer but A."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    world = miniworld.folder("miniworld")
    for name in ("mmlu", "general"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "medical").mkdir()
    lines = (world / "medical/synthetic_medical_texts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "medical/synthetic_medical_texts.jsonl").write_text("".join(lines[:50] * 2), encoding="utf-8")
    (tmp_path / "cmexam").mkdir()
    with (world / "cmexam/synthetic_val.csv").open(encoding="utf-8", newline="") as file:
        test = list(csv.DictReader(file))
    for name, rows in {"val": test, "train": [{**row, "Answer": "A"} for row in test]}.items():
        with (tmp_path / f"cmexam/synthetic_{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, test[0])
            writer.writeheader()
            writer.writerows(rows)
    settings = {**TINY, "data_root": str(tmp_path), "training": TINY["training"] | {"sequence_length": 256}}
    settings["data"] = {**TINY["data"], "exam": {"path": "cmexam/synthetic_train.csv", "format": "exam"}}
    (tmp_path / "leaky.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return tmp_path / "leaky.yaml"


def report(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    done = in_process(capfd, "data", "inspect", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_the_report_finds_what_is_wrong_and_cleaning_mends_it(
    leaky: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report(capfd, str(leaky))
    medical, exam, english = (found["sources"][name] for name in ("medical", "exam", "english"))
    assert medical["duplicates"]["copies_within"] == 50 and medical["documents"] == 100
    assert medical["duplicates"]["examples"][0] == {
        "at": f"{leaky.parent}/medical/synthetic_medical_texts.jsonl, line 51",
        "of": f"{leaky.parent}/medical/synthetic_medical_texts.jsonl, line 1",
        "share": 1.0,
    }
    assert exam["questions"]["cmexam"]["documents_holding"] == exam["documents"] > 20
    assert exam["questions"]["cmexam"]["examples"][0]["at"].endswith("cmexam/synthetic_train.csv, line 2")
    assert english["questions"] == {} and english["duplicates"]["examples"] == []
    for source in (medical, exam, english):
        assert sum(number for *_, number in source["lengths"]) == source["documents"] == sum(source["parts"].values())
        assert source["lengths"][0][2] and source["lengths"][-1][1] >= source["longest"] >= source["lengths"][-1][0]
    assert found["benchmarks"]["cmexam"]["contaminated"] == exam["parts"]["train"]
    assert found["benchmarks"]["mmlu"]["contaminated"] == 0
    warnings = "\n".join(found["warnings"])
    assert (
        f"{exam['parts']['train']} of " in warnings and "questions of cmexam stand in text that is trained" in warnings
    )
    assert "50 documents of medical repeat earlier ones" in warnings
    assert "the right letters of exam and cmexam differ" in warnings and "'A' is 100.0% in training" in warnings

    told = in_process(capfd, "data", "inspect", str(leaky))
    assert told.code == 0
    for words in ("train.csv, line 2 has 100% of cmexam", "tokens of a document", "█", "warning: 50 documents"):
        assert words in told.out

    clean = report(capfd, str(leaky), "data.medical.deduplicate=true", "data.medical.decontaminate=true")
    assert clean["sources"]["medical"]["documents"] == clean["sources"]["medical"]["dropped"] == 50
    assert clean["sources"]["medical"]["duplicates"] == medical["duplicates"]
    assert not any("medical repeat" in warning for warning in clean["warnings"])

    empty = in_process(capfd, "data", "inspect", str(leaky), "data.exam.decontaminate=true")
    empty.is_mistake("no document of cmexam/synthetic_train.csv falls in the part 'train'", "are left out: deduplicate")


def test_an_experiment_without_exams(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = yaml.safe_dump({**TINY, "evaluation": {"retention": [{"perplexity": "english"}]}})
    (tmp_path / "plain.yaml").write_text(text)
    found = report(capfd, str(tmp_path / "plain.yaml"))
    assert found["benchmarks"] == {} and found["answers"] == []
    asked = in_process(capfd, "data", "inspect", str(tmp_path / "plain.yaml"), "data.english.decontaminate=true")
    asked.is_mistake("data.english.decontaminate: there is no exam under evaluation")


def test_a_run_drops_what_it_is_told_to_and_scores_what_it_has_learned_apart(
    leaky: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The exam leaks; medical text, of which each document comes twice, is cleaned, and the base is made of it too."""
    folder = leaky.parent / "run"
    base = "model.build.pretrain.data=[medical]"
    done = in_process(capfd, "run", str(leaky), "-o", str(folder), base, "data.medical.deduplicate=true")
    assert done.code == 0, done.err
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert "data.medical: 50 documents that repeat earlier ones and 0 with text of benchmark questions" in log
    told = re.search(r"(\d+) questions of cmexam stand in text that is trained on: results give them apart", log)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    for point in {row["point"] for row in rows}:
        asked = {
            row["category"]: row["questions"]
            for row in rows
            if row["point"] == point and row["benchmark"] == "cmexam" and row["metric"] == "accuracy"
        }
        assert asked["clean"] + asked["contaminated"] == asked["all"] == 20
        assert min(asked["clean"], asked["contaminated"]) > 0
        assert told and int(told[1]) == asked["contaminated"], "of the questions that are asked"
    assert not any(row["category"] in ("clean", "contaminated") for row in rows if row["benchmark"] == "mmlu")
