"""The clmed command as its users run it, on an experiment of seconds: MiniWorld, a pico Llama, a few steps."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clmed import cli

OPTIMIZER = {"lr": 1e-3}
TINY: dict[str, Any] = {
    "name": "tiny",
    "data_root": "miniworld",
    "model": {
        "build": {
            "hidden_size": 32,
            "layers": 2,
            "heads": 2,
            "vocabulary": 384,
            "context": 512,
            "tokenizer_from": ["english", "medical"],
            "pretrain": {
                "data": ["english"],
                "tokens": 4096,
                "sequence_length": 64,
                "tokens_per_step": 1024,
                "optimizer": OPTIMIZER,
            },
        }
    },
    "data": {
        "english": {"path": "general/synthetic_english_covered_texts.jsonl", "format": "text"},
        "medical": {"path": "medical/synthetic_medical_texts.jsonl", "format": "text"},
        "exam": {"path": "cmexam/synthetic_train.csv", "format": "exam", "answer_as": "text"},
    },
    "stream": [
        {"name": "pretraining", "data": "medical", "tokens": 4000, "measure_at": ["2k"], "optimizer": OPTIMIZER},
        {"name": "finetuning", "data": "exam", "tokens": 2000, "optimizer": OPTIMIZER},
    ],
    "strategy": {"replay": {"ratio": 0.25, "from": ["english"]}},
    "evaluation": {
        "gain": [{"benchmark": "cmexam", "path": "cmexam/synthetic_val.csv", "scoring": "text", "questions": 20}],
        "retention": [
            {"benchmark": "mmlu", "path": "mmlu", "scoring": "text", "questions": 20},
            {"perplexity": "english"},
        ],
    },
    "training": {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 8, "share_experiences": False},
}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def is_mistake(self, *words: str) -> None:
        """It ended as it must for a mistake of the user: code 2, one paragraph with the `words`, no traceback."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.err and "\n\n" not in self.err.strip(), self.err
        for word in words:
            assert word in self.err


def write_tiny(folder: Path) -> Path:
    """`tiny.yaml` in `folder`."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return file


def in_process(capfd: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """The command without the seconds that a process of its own takes to import everything."""
    before = sys.argv
    sys.argv = ["clmed", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return Done(int(ended.value.code or 0), *capfd.readouterr())


def process(folder: Path, *command: str) -> Done:
    """`python -m ...` in a process of its own, not on a terminal."""
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return Done(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`, hidden ones too, by its path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def checkpoint_files(*names: str) -> set[str]:
    """What checkpoints of one process consist of, by their paths in the run directory."""
    return {f"checkpoints/{name}/{file}" for name in names for file in ("manifest.json", ".metadata", "__0_0.distcp")}
