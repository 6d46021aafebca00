"""The YAML and the Python on the pages: what a reader copies is accepted, and runs."""

import sys
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import clmed
from clmed import config, validation
from clmed.config import EvaluationConfig
from clmed.config.tuning import load_tuning
from clmed.data import miniworld
from tests.docs.pages import ROOT, Block, blocks, every_block

# What lies under a part of an experiment, with the names that pages use.
TEXTS = ("general", "wikipedia", "medical", "encyclopedia", "a", "b", "c")
BASE: dict[str, Any] = {
    "name": "page",
    "data_root": "files",
    "model": {"path": "gpt2"},
    "data": {name: {"path": f"{name}.jsonl", "format": "text"} for name in TEXTS}
    | {"exam": {"path": "exam.csv", "format": "exam"}},
    "stream": [
        {"name": "medical-pretraining", "data": "medical", "epochs": 3, "optimizer": {"lr": 2e-5}},
        {"name": "exam-finetuning", "data": "exam", "epochs": 1, "optimizer": {"lr": 1e-5}},
    ],
    "evaluation": {
        "gain": [{"benchmark": "cmexam", "path": "test.csv"}],
        "retention": [{"benchmark": "mmlu", "shots": 5}, {"perplexity": "general"}],
    },
    "training": {"sequence_length": 1024, "tokens_per_step": 65536},
}


def test_every_block_says_what_it_is() -> None:
    """`text` is output, a formula or a tree; a name in braces is a directive of Sphinx."""
    known = ("sh", "console", "yaml", "python", "toml", "text")
    assert not [str(block) for block in every_block() if block.kind not in known and not block.kind.startswith("{")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's: experiments/ of the checkout, and the exams of MiniWorld in `files`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "page.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "files").mkdir()
    (tmp_path / "data").symlink_to("files")
    for exam in ("mmlu", "cmmlu"):
        (tmp_path / "files" / exam).symlink_to(miniworld.folder("miniworld") / exam)
    touch(tmp_path / "files", BASE)
    return tmp_path


def touch(folder: Path, data: Any) -> None:
    """Make the files that a configuration names, empty."""
    for key, value in data.items() if isinstance(data, dict) else ():
        if key in ("path", "shots_from") and isinstance(value, str) and Path(value).suffix:
            (folder / value).parent.mkdir(parents=True, exist_ok=True)
            (folder / value).touch()
        touch(folder, value)
    for value in data if isinstance(data, list) else ():
        touch(folder, value)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_is_accepted(block: Block, folder: Path) -> None:
    """A whole experiment as it stands, a part of one over a base: with its strategies, files and exams."""
    text, data = block.text, yaml.safe_load(block.text)
    if isinstance(data, list):
        text = f"retention:\n{textwrap.indent(text, '  ')}"
        data = yaml.safe_load(text)
    file = folder / "block.yaml"
    if "experiments" in data:
        file.write_text(block.text)
        assert all((ROOT / "experiments" / name).is_file() for name in load_tuning(file).experiments)
        return
    file.write_text(whole(text, data))
    touch(folder if is_whole(data) else folder / "files", data)
    # Other runs are not here, and to list the tasks of lm-evaluation-harness takes seconds.
    load = config.load if "from" in data or "lm_eval/" in block.text else validation.load
    load(file)


def whole(text: str, data: Any) -> str:
    """The text, with what a part of an experiment needs around and below it."""
    if data.keys() <= EvaluationConfig.model_fields.keys():
        text = f"evaluation:\n{textwrap.indent(text, '  ')}"
    return text if is_whole(data) else f"extends: page.yaml\n{text}"


def is_whole(data: Any) -> bool:
    return "extends" in data or {"model", "data", "stream", "evaluation", "training"} <= data.keys()


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_toml(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize("block", [block for block in blocks("python") if not block.caption], ids=str)
def test_python_runs(block: Block, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with a caption are run by the test of their tutorial. An experiment is checked, not run."""
    monkeypatch.chdir(reader)
    training = ModuleType("clmed.experiment")
    training.run = lambda *arguments: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clmed.experiment", training)
    monkeypatch.setattr(clmed, "experiment", training, raising=False)
    exec(compile(block.text, str(block), "exec"), {})
