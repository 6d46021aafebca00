"""What the paper's experiments read, made small: the hub's data sets, the exams' files, and two pico Llamas."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets

BASES = {"meta-llama/Llama-2-13b-hf": 0, "hfl/chinese-llama-2-13b": 24}  # and how many tokens more the vocabulary has
SMALL = (
    "training.sequence_length=128",
    "training.micro_batch_size=8",
    "training.asynchronous_saves=false",
)


def make_world(folder: Path, make_model: Callable[..., Any], tokenizer: Any) -> Callable[..., Any]:
    """The folder to run in; what is returned stands for `datasets.load_dataset`."""
    for path, more in BASES.items():
        model = make_model(vocab_size=len(tokenizer) + more, max_position_embeddings=2048)
        model.save_pretrained(folder / path)
        tokenizer.save_pretrained(folder / path)
    _exams(folder / "data")
    hub = {
        "FreedomIntelligence/huatuo_encyclopedia_qa": [
            {"questions": [[f"药{n}？", f"何为药{n}？"]], "answers": [f"治病{n}。"]} for n in range(40)
        ],
        "20231101.en": [{"text": f"Town {n} has {n % 7} mills."} for n in range(60)],
        "20231101.zh": [{"text": f"城{n}在河{n % 7}边。"} for n in range(60)],
        "epfl-llm/guidelines": [{"clean_text": f"For illness {n} give drug {n}."} for n in range(40)],
    }
    made = {name: datasets.Dataset.from_list(rows) for name, rows in hub.items()}

    def load_dataset(path: str, subset: str | None = None, split: str = "train") -> Any:
        assert split.startswith("train")
        return made[subset or path]

    return load_dataset


def _exams(data: Path) -> None:
    header = ["Question", "Options", "Answer", "Explanation"]
    exam = [[f"病{n}？", f"A 药{n}\nB 无", "AB"[n % 2], f"药{n}治。"] for n in range(30)]
    cases = [[f"患者{n}岁" + "，男" * 30, "A 药\nB 无", "A", ""] for n in range(3)]
    _table(data / "cmexam" / "train.csv", [header, *exam[3:]])
    _table(data / "cmexam" / "test.csv", [header, *exam[:3], *cases])
    four = [[f"What is {n}?", "one", "two", "three", "four", "ABCD"[n % 4]] for n in range(9)]
    numbered = [["", "Question", "A", "B", "C", "D", "Answer"], *([n, *row] for n, row in enumerate(four))]
    for part, rows_of in (("dev", slice(0, 5)), ("test", slice(5, 9))):
        _table(data / "mmlu" / part / f"anatomy_{part}.csv", four[rows_of])
        _table(data / "cmmlu" / part / "anatomy.csv", [numbered[0], *numbered[1:][rows_of]])
    case = {"question": "A case", "options": {"A": "one", "B": "two"}, "answer_idx": "A", "meta_info": "step1"}
    for country in ("Mainland", "US"):
        _write(data / "medqa" / country / "test.jsonl", "\n".join([json.dumps(case)] * 4))
    asked = {str(n): {"QUESTION": f"Is {n} one?", "CONTEXTS": ["It is."], "final_decision": "yes"} for n in range(4)}
    _write(data / "pubmedqa" / "ori_pqal.json", json.dumps(asked))
    _write(data / "pubmedqa" / "test_ground_truth.json", json.dumps({"0": "yes", "1": "yes"}))


def _table(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
