"""experiments/smollm2: the folder that prepare.py makes; every file with a model of the same architecture."""

import json
import runpy
from pathlib import Path

import pytest
from click.testing import CliRunner

from clmed import validation
from clmed.cli import main
from clmed.config import load

STUDY = Path(__file__).parent.parent / "experiments" / "smollm2"
FILES = sorted(STUDY.glob("*/*.yaml"))
TINY = (
    "model={build: {hidden_size: 16, layers: 1, heads: 2, intermediate_size: 32, vocabulary: 512, context: 2048, "
    "tokenizer_from: [wikipedia, web], pretrain: "
    "{data: [web], tokens: 2k, sequence_length: 512, tokens_per_step: 1024, micro_batch_size: 2, "
    "optimizer: {lr: 0.001}}}}"
)


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What prepare.py makes, but for the model."""
    folder = tmp_path_factory.mktemp("smollm2")
    for part in ("cmexam", "mmlu", "cmmlu", "medical", "general"):
        (folder / part).symlink_to(real_data / part)
    prepare = runpy.run_path(str(STUDY / "prepare.py"))
    prepare["write_pubmedqa"](folder / "medical" / "pubmedqa", folder / "pubmedqa")
    return folder


def test_no_question_of_the_test_is_learned(folder: Path) -> None:
    test = json.loads((folder / "medical" / "pubmedqa" / "test_ground_truth.json").read_text("utf-8"))
    records = json.loads((folder / "medical" / "pubmedqa" / "ori_pqal.json").read_text("utf-8"))
    learned = [json.loads(line) for line in (folder / "pubmedqa" / "questions.jsonl").open(encoding="utf-8")]
    asked = [question["question"].split("\nQuestion: ")[1].removesuffix("\nAnswer:") for question in learned]
    others = [record for key, record in records.items() if key not in test]
    assert asked == [record["QUESTION"] for record in others]
    assert [question["answer"] for question in learned] == [record["final_decision"] for record in others]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_the_files_are_valid(file: Path, folder: Path) -> None:
    validation.check(load(file, [f"data_root={folder}", TINY]))


@pytest.mark.full
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_three_steps(file: Path, folder: Path, tmp_path: Path) -> None:
    names = [experience.name for experience in load(file, [f"data_root={folder}"]).stream]
    short = [f"stream.{name}.tokens=6144" for name in names]
    command = ["run", str(file), f"data_root={folder}", TINY, *short, "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    steps = [json.loads(line)["experience"] for line in (tmp_path / "run" / "train.jsonl").open(encoding="utf-8")]
    assert all(steps.count(name) >= 3 for name in names)
