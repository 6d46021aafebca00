"""Every change that a diagnosis may propose is a configuration that `clmed validate` takes, laid on the run's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from clmed import validation
from clmed.config import ExperimentConfig, dump
from clmed.results.diagnosis import changes
from tests import planted

TWO = (
    "stream=[{name: one, data: [asked_texts, senseless], tokens: 10k, optimizer: {lr: 3e-3}}, "
    "{name: two, data: asked_qa, tokens: 10k, optimizer: {lr: 1e-3, state: carry}}]"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    planted.make_world(folder)
    return folder


def tried(folder: Path, tmp_path: Path, change: Callable[[ExperimentConfig], str], *overrides: str) -> dict[str, Any]:
    """What is proposed for the configuration of a run, after the loader has taken it."""
    before = validation.load(folder / "small.yaml", overrides)
    (tmp_path / "config.yaml").write_text(dump(before), encoding="utf-8")  # as it stands in a run
    text = change(before)
    (tmp_path / "try.yaml").write_text(f"extends: config.yaml\n{text}", encoding="utf-8")
    assert dump(validation.load(tmp_path / "try.yaml")) != dump(before)
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("strategy", "general", "expected"),
    [
        ("{}", ["english_texts"], {"replay": {"ratio": 0.05, "from": ["english_texts"]}}),
        ("{ewc: {fisher_from: [english_texts]}}", ["english_qa"], {"replay": {"ratio": 0.05, "from": ["english_qa"]}}),
        ("{replay: {ratio: 0.1, from: [english_texts]}}", [], {"replay": {"ratio": 0.2}}),
        ("{rewarm: {from: [english_texts]}}", [], {"rewarm": {"ratio": 0.1}}),
        ("{replay: {ratio: 0.5, from: [english_texts]}}", ["english_qa"], None),
        ("{der: {ratio: 0.2, from: [english_texts]}}", [], {"der": {"ratio": 0.4}}),
        ("{interleave: {every: 8, from: [english_texts]}}", [], {"interleave": {"every": 4}}),
        ("{interleave: {every: 2, from: [english_texts]}}", [], None),
        ("{joint: {from: [english_texts]}}", ["english_qa"], None),
        ("{naive: {}}", [], {"average": {"alpha": 0.5}}),
        ("{lora: {}}", [], None),
    ],
)
def test_against_forgetting(folder: Path, tmp_path: Path, strategy: str, general: list[str], expected: Any) -> None:
    found = tried(
        folder, tmp_path, lambda config: changes.rehearse(config, general, ratio=0.05), f"strategy={strategy}"
    )
    if expected is None:  # what is left is to learn more slowly
        assert [experience["optimizer"]["lr"] for experience in found["stream"]] == [0.001]
    else:
        assert found == {"strategy": expected}


def test_rehearsal_of_several_experiences_holds_the_past(folder: Path, tmp_path: Path) -> None:
    found = tried(
        folder, tmp_path, lambda config: changes.rehearse(config, ["english_qa"], ratio=0.25), TWO, "strategy={}"
    )
    assert found == {"strategy": {"replay": {"ratio": 0.25, "from": ["english_qa", "past"]}}}


def test_the_stream_without_a_source(folder: Path, tmp_path: Path) -> None:
    found = tried(folder, tmp_path, lambda config: changes.without(config, ["senseless"]) or "", TWO)
    assert [experience["data"] for experience in found["stream"]] == [["asked_texts"], ["asked_qa"]]
    found = tried(folder, tmp_path, lambda config: changes.without(config, ["asked_texts", "senseless"]) or "", TWO)
    assert [experience["name"] for experience in found["stream"]] == ["two"]
    assert changes.without(validation.load(folder / "small.yaml"), planted.MEDICAL) is None


def test_more_data_a_language_first_and_a_further_measurement(folder: Path, tmp_path: Path) -> None:
    found = tried(folder, tmp_path, lambda config: changes.more_data(config, ["unasked_qa"]), TWO)
    assert found["stream"][0]["data"] == ["asked_texts", "senseless", "unasked_qa"]
    assert found["stream"][1]["optimizer"] == {"lr": 0.001, "state": "carry"}
    found = tried(folder, tmp_path, lambda config: changes.first_learn(config, "language", ["chinese_texts"]), TWO)
    assert [experience["name"] for experience in found["stream"]] == ["language", "one", "two"]
    found = tried(folder, tmp_path, lambda config: changes.measure_text(config, "senseless"))
    assert found["evaluation"]["gain"][1] == {"perplexity": "senseless"} and len(found["evaluation"]["gain"]) == 2
