"""A world of a few hundred facts and runs of seconds in it, healthy or with one fault planted.

The base model knows English and Chinese general facts and some medical ones. A healthy run teaches it the medical facts
(diseases) that the exam asks, beside general text. The faults are in the data: facts of which it asks nothing (drugs);
a source without sense; a language that the base has never seen; no rehearsal and too high a learning rate.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from clmed import experiment, validation
from clmed.data import miniworld

SUBJECTS = ("geography", "nature")
GENERAL = ["english_texts", "english_qa", "chinese_texts", "chinese_qa"]
MEDICAL = ["asked_texts", "asked_qa"]
FORMATS = {"texts": "text", "qa": "qa"}


def make_world(folder: Path) -> None:
    """The files of the world, and small.yaml, a healthy experiment in it."""
    world = miniworld.make(0)
    general = {
        language: [f for g in ("covered", "uncovered") for f in world.general[language, g] if f.subject in SUBJECTS]
        for language in ("english", "chinese")
    }
    medical = [fact for part in world.medical.values() for fact in part if len(fact.values) == 1]
    diseases, drugs = (sorted({f.thing for f in medical if f.subject == name}) for name in ("disease", "drug"))
    of = {"asked": diseases[8:], "unasked": drugs[8:], "known": [*diseases[:8], *drugs[:8]]}
    groups: dict[tuple[str, str], Any] = {("english", "english"): general["english"]}
    groups |= {("chinese", "chinese"): general["chinese"]}
    groups |= {("chinese", name): [fact for fact in medical if fact.thing in chosen] for name, chosen in of.items()}
    # Every wording of an exam is a question of its own: small exams cannot tell whether they rise.
    asked = groups["chinese", "asked"]
    groups["chinese", "asked"] = [replace(fact, examined=(wording,)) for fact in asked for wording in fact.examined]
    miniworld.write(folder, miniworld.World(general=groups, medical={}), 0)
    for file in (folder / "general").glob("*_asked_*.jsonl"):
        file.write_text("".join(dict.fromkeys(file.read_text(encoding="utf-8").splitlines(True))), encoding="utf-8")

    texts = {name: _lines(folder, name) for name in ("asked", "chinese")}
    _write(folder / "senseless.jsonl", [_shuffled(text) for text in texts["asked"]])
    _write(folder / "foreign_medical.jsonl", [_in_hangul(text) for text in texts["asked"]])
    _write(folder / "foreign_general.jsonl", [_in_hangul(text) for text in texts["chinese"]])
    (folder / "small.yaml").write_text(yaml.safe_dump(_config(folder), sort_keys=False), encoding="utf-8")


def run(folder: Path, name: str, *overrides: str) -> Path:
    """The experiment, done in this process, without its figures."""
    config = validation.load(folder / "small.yaml", [f"name={name}", *overrides])
    with patch("clmed.experiment.plot_runs", return_value=[]):
        return experiment.run(config, folder / name).path


def _config(folder: Path) -> dict[str, Any]:
    languages = {"english": "english"} | dict.fromkeys(("chinese", "known", "asked", "unasked"), "chinese")
    data: dict[str, Any] = {
        f"{name}_{kind}": {"path": f"general/synthetic_{language}_{name}_{kind}.jsonl", "format": form, "fisher": 0.0}
        for name, language in languages.items()
        for kind, form in FORMATS.items()
    }
    for name in ("known_texts", "known_qa"):
        data[name]["base_only"] = True
    for name in ("senseless", "foreign_medical", "foreign_general"):
        data[name] = {"path": f"{name}.jsonl", "format": "text", "fisher": 0.0, "heldout": 0.2}
    optimizer = {"warmup": 0.02}
    training = {"sequence_length": 64, "tokens_per_step": 2048, "micro_batch_size": 32}
    pretrain = {"data": [*GENERAL, "known_texts", "known_qa"], "tokens": "250k", "optimizer": {**optimizer, "lr": 6e-3}}
    build = {"hidden_size": 64, "layers": 2, "heads": 4, "intermediate_size": 192, "vocabulary": 1024, "context": 128}
    build |= {"tokenizer_from": [*GENERAL, "known_texts", "known_qa", *MEDICAL], "pretrain": {**pretrain, **training}}
    return {
        "name": "small",
        "data_root": str(folder),
        "model": {"build": build},
        "data": data,
        "stream": [{"name": "learning", "data": MEDICAL, "tokens": "50k", "optimizer": {**optimizer, "lr": 3e-3}}],
        "strategy": {"replay": {"ratio": 0.4, "from": GENERAL}},
        "evaluation": {
            "gain": [{"benchmark": "cmmlu", "name": "medical", "path": "cmmlu", "only": ["asked"], "scoring": "text"}],
            "retention": [
                {"benchmark": "mmlu", "path": "mmlu", "scoring": "text"},
                {"perplexity": "english_texts"},
                {"perplexity": "chinese_texts"},
            ],
        },
        "training": {**training, "share_experiences": False},
    }


def _lines(folder: Path, name: str) -> list[str]:
    path = folder / "general" / f"synthetic_chinese_{name}_texts.jsonl"
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, texts: list[str]) -> None:
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text(lines, encoding="utf-8")


def _shuffled(text: str) -> str:
    """The letters in random order, as a broken export may leave them."""
    return "".join(random.Random(text).sample(text, len(text)))


def _in_hangul(text: str) -> str:
    """Each Chinese character as a syllable of another script, always the same."""
    return "".join(chr(0xAC00 + ord(letter) % 11172) if "\u4e00" <= letter <= "\u9fff" else letter for letter in text)
