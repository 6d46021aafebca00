"""The experiments on SmolLM2: what their scripts make, and every file with a tiny model of the same architecture."""

import csv
import json
import re
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

from clmed import validation
from clmed.cli import commands
from clmed.config import load

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FILES = sorted(file for study in ("smollm2", "law", "spanish") for file in (EXPERIMENTS / study).rglob("*.yaml"))
TINY = (
    "model={build: {hidden_size: 16, layers: 1, heads: 2, intermediate_size: 32, vocabulary: 512, context: 2048, "
    "tokenizer_from: [wikipedia, web], pretrain: {data: [web], tokens: 2k, sequence_length: 256, "
    "tokens_per_step: 1024, micro_batch_size: 2, optimizer: {lr: 0.001}}}}"
)

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXPERIMENTS)))


def write_invented(folder: Path) -> None:
    made = runpy.run_path(str(EXPERIMENTS / "invented.py"))
    made["write"](folder / "law", *(made[name] for name in ("LAW_ENDS", "LAW", "LAW_TEXTS", "LAW_QUESTIONS")))
    spanish = ("MEDICINE_ENDS", "MEDICINES", "MEDICINE_TEXTS", "MEDICINE_QUESTIONS")
    made["write"](folder / "spanish", *(made[name] for name in spanish))


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scripts make, but for the model."""
    folder = tmp_path_factory.mktemp("studies")
    for part in ("cmexam", "mmlu", "cmmlu", "medical", "general"):
        (folder / part).symlink_to(real_data / part)
    prepare = runpy.run_path(str(EXPERIMENTS / "smollm2" / "prepare.py"))
    prepare["write_pubmedqa"](folder / "medical" / "pubmedqa", folder / "pubmedqa")
    write_invented(folder)
    return folder


def run(file: Path, folder: Path, *settings: str) -> Path:
    done = CliRunner().invoke(
        commands, ["run", str(file), f"data_root={folder}", TINY, *settings, "-o", str(folder / "run")]
    )
    assert done.exit_code == 0, done.output
    return folder / "run"


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]  # texts hold U+2028


def test_no_question_of_the_test_is_learned(folder: Path) -> None:
    test = json.loads((folder / "medical" / "pubmedqa" / "test_ground_truth.json").read_text("utf-8"))
    records = json.loads((folder / "medical" / "pubmedqa" / "ori_pqal.json").read_text("utf-8"))
    learned = lines(folder / "pubmedqa" / "questions.jsonl")
    asked = [str(question["question"]).split("\nQuestion: ")[1].removesuffix("\nAnswer:") for question in learned]
    others = [record for key, record in records.items() if key not in test]
    assert asked == [record["QUESTION"] for record in others]
    assert [question["answer"] for question in learned] == [record["final_decision"] for record in others]
    texts = [str(line["text"]) for line in lines(folder / "pubmedqa" / "texts.jsonl")]
    assert len(texts) == len(others)
    for text, other in zip(texts, others, strict=True):
        assert all(part in text for part in other["CONTEXTS"])
    tested = [part for key in test for part in records[key]["CONTEXTS"] if len(part) > 100]  # not "Case series."
    assert not [part for part in tested if any(part in text for text in texts)]


@pytest.mark.parametrize("domain", ["law", "spanish"])
def test_invented_facts_are_told_and_half_of_them_asked(domain: str, tmp_path: Path) -> None:
    write_invented(tmp_path)
    texts = [str(line["text"]) for line in lines(tmp_path / domain / "texts.jsonl")]
    asked: list[list[dict[str, str]]] = []
    for part in ("train", "test"):
        with (tmp_path / domain / f"{part}.csv").open(encoding="utf-8") as table:
            asked.append(list(csv.DictReader(table)))
    names = [
        {re.findall(r"[A-Z][a-z]+(?= Act)|[A-Z][a-z]+(?=\?)", row["question"])[0] for row in part} for part in asked
    ]
    assert len(names[0]) == len(names[1]) == 20 and not names[0] & names[1]
    for row in [*asked[0], *asked[1]]:
        (name,) = {name for name in names[0] | names[1] if name in row["question"]}
        assert sum(row["answer"] in text for text in texts if name in text) == 4
        assert row["answer"] in (row[letter] for letter in "ABCD")


@every_file
def test_the_files_are_valid(file: Path, folder: Path) -> None:
    validation.check(load(file, [f"data_root={folder}", TINY]))


@pytest.mark.parametrize("domain", ["law", pytest.param("spanish", marks=pytest.mark.full)])
def test_another_domain_by_its_files_alone(domain: str, tmp_path: Path) -> None:
    write_invented(tmp_path)
    (tmp_path / "general").mkdir()
    for name in ("wikipedia_en", "c4_sample"):
        texts = [f"{name} {number}: the sum of {number} and {number} is {2 * number}." for number in range(300)]
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / "general" / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    file = EXPERIMENTS / domain / "replay.yaml"
    done = run(file, tmp_path, "evaluation.retention=[{perplexity: web}]", "evaluation.primary=[]")
    scores = [line for line in lines(done / "results.jsonl") if line["category"] == "all"]
    nats = [
        line["score"]
        for line in scores
        if line["benchmark"] == "texts_perplexity" and line["metric"] == "nats_per_token"
    ]
    assert len(nats) == 3 and nats[0] > nats[1]
    assert {line["benchmark"] for line in scores} >= {"web_perplexity", "law" if domain == "law" else "medicines"}


@pytest.mark.full
@every_file
def test_three_steps(file: Path, folder: Path, tmp_path: Path) -> None:
    names = [experience.name for experience in load(file, [f"data_root={folder}"]).stream]
    short = [f"stream.{name}.{key}" for name in names for key in ("tokens=6144", "epochs=null")]
    steps = [line["experience"] for line in lines(run(file, folder, *short) / "train.jsonl")]
    assert all(steps.count(name) >= 3 for name in names)
