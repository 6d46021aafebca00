"""A good experiment file to break: its text, a folder that holds it, and what clmed says of it."""

from pathlib import Path

import pytest

from clmed import validation
from clmed.errors import UserError

BASE = """\
name: base
data_root: .
model:
  build: {hidden_size: 32, layers: 2, heads: 4, vocabulary: 1k, context: 128, tokenizer_from: general,
          pretrain: {data: [general], epochs: 1, sequence_length: 64, tokens_per_step: 128, optimizer: {lr: 1e-3}}}
data:
  encyclopedia: {path: encyclopedia.jsonl, format: qa}
  general: {path: general.jsonl, format: text}
  exam: {path: exams/train.csv, format: exam, answer_as: text}
stream:
  - name: pretraining
    data: encyclopedia
    epochs: 3
    measure_at: [1 epoch, 0.5 epochs, 400k]
    optimizer: {lr: 2e-5, warmup: 0}
  - name: tuning
    data: [exam]
    tokens: 2.5M
    optimizer: {lr: 1.0e-5}
strategy:
evaluation:
  gain: [{benchmark: cmexam, path: exams/test.csv}]
  retention:
    - {benchmark: mmlu, path: mmlu, shots: 5}
    - {perplexity: general}
training: {sequence_length: 64, tokens_per_step: 64k, threads: 1}
"""


def make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with base.yaml and all the files that it names."""
    monkeypatch.chdir(tmp_path)
    files = [
        "encyclopedia.jsonl",
        "general.jsonl",
        "exams/train.csv",
        "exams/test.csv",
        "mmlu/dev/a.csv",
        "mmlu/test/a.csv",
    ]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}\n", encoding="utf-8")
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    return tmp_path


def complaint(*overrides: str, file: str = "base.yaml") -> str:
    with pytest.raises(UserError) as caught:
        validation.load(file, overrides)
    return str(caught.value)
