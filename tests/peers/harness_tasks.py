"""Small data sets for tasks of lm-evaluation-harness: its own task files, their questions from files written here."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

TEXT = "the capital Norland is Karo river harbour quick brown fox lazy dog and 感冒 桂枝汤 甘草 0123 of has A B C"
WORDS = TEXT.split()
Doc = dict[str, Any]


def words(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))


def hellaswag(draw: random.Random) -> Doc:
    endings = [words(draw, 3, 9) + "." for _ in range(4)]
    start = {"activity_label": words(draw, 1, 2), "ctx_a": words(draw, 5, 12) + ".", "ctx_b": words(draw, 1, 3)}
    return {**start, "endings": endings, "label": str(draw.randrange(4))}


def arc(draw: random.Random) -> Doc:
    count = draw.choice([3, 4, 5])
    choices = {"text": [words(draw, 1, 4) for _ in range(count)], "label": list("ABCDE"[:count])}
    return {"question": words(draw, 4, 14) + "?", "choices": choices, "answerKey": draw.choice(choices["label"])}


def piqa(draw: random.Random) -> Doc:
    return {"goal": words(draw, 3, 9), "sol1": words(draw, 4, 9), "sol2": words(draw, 4, 9), "label": draw.randrange(2)}


def winogrande(draw: random.Random) -> Doc:
    sentence = f"{words(draw, 3, 7)} _ {words(draw, 3, 7)}."
    return {"sentence": sentence, "option1": "Karo", "option2": words(draw, 1, 2), "answer": draw.choice("12")}


def boolq(draw: random.Random) -> Doc:
    return {"passage": words(draw, 10, 30) + ".", "question": words(draw, 4, 8), "label": draw.randrange(2)}


def lambada(draw: random.Random) -> Doc:
    return {"text": words(draw, 10, 30)}


def mmlu(draw: random.Random) -> Doc:
    choices = [words(draw, 1, 4) for _ in range(4)]
    return {"question": words(draw, 4, 14) + "? ", "choices": choices, "answer": draw.randrange(4)}


def gsm8k(draw: random.Random) -> Doc:
    number = draw.randrange(10)
    return {"question": words(draw, 10, 20) + "?", "answer": f"{words(draw, 4, 9)}\n#### {number}"}


def triviaqa(draw: random.Random) -> Doc:
    return {"question": words(draw, 4, 10), "answer": {"aliases": [words(draw, 1, 2), words(draw, 1, 2)]}}


def nq_open(draw: random.Random) -> Doc:
    return {"question": words(draw, 4, 10), "answer": [words(draw, 1, 2), words(draw, 1, 2)]}


def wikitext(draw: random.Random) -> Doc:
    return {"page": f" = {words(draw, 1, 2)} = \n \n {words(draw, 5, 400)} @-@ one , two . \n"}


def truthfulqa(draw: random.Random) -> Doc:
    choices = [words(draw, 2, 6) for _ in range(draw.randint(3, 6))]
    labels = [1] + [draw.randrange(2) for _ in choices[2:]] + [0]
    targets = {"choices": choices, "labels": labels}
    return {"question": words(draw, 4, 9) + "?", "mc1_targets": targets, "mc2_targets": targets}


# name -> its file in the harness, how a question is made, the split that is asked.
TASKS: dict[str, tuple[str, Callable[[random.Random], Doc], str]] = {
    "hellaswag": ("hellaswag/hellaswag.yaml", hellaswag, "validation"),
    "arc_easy": ("arc/arc_easy.yaml", arc, "test"),
    "piqa": ("piqa/piqa.yaml", piqa, "validation"),
    "winogrande": ("winogrande/default.yaml", winogrande, "validation"),
    "boolq": ("super_glue/boolq/default.yaml", boolq, "validation"),
    "lambada_openai": ("lambada/lambada_openai.yaml", lambada, "test"),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", mmlu, "test"),
    "mmlu_virology": ("mmlu/default/mmlu_virology.yaml", mmlu, "test"),
    "gsm8k": ("gsm8k/gsm8k.yaml", gsm8k, "test"),
    "triviaqa": ("triviaqa/default.yaml", triviaqa, "validation"),
    "nq_open": ("nq_open/nq_open.yaml", nq_open, "validation"),
    "wikitext": ("wikitext/wikitext.yaml", wikitext, "test"),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", truthfulqa, "validation"),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", truthfulqa, "validation"),
}
GROUP = {
    "group": "two_subjects",
    "task": [
        "mmlu_anatomy",
        {"group": "inner", "task": ["mmlu_virology"], "aggregate_metric_list": [{"metric": "acc"}]},
    ],
    "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
}

# Tasks that are refused, by how they differ from triviaqa.
REFUSED: dict[str, dict[str, Any]] = {
    "sampled": {"generation_kwargs": {"do_sample": True, "temperature": 0.8}},
    "beams": {"generation_kwargs": {"num_beams": 4}},
    "long": {"generation_kwargs": {"max_gen_toks": 600}},
    "gone": {"dataset_kwargs": {"data_files": {"test": "nowhere.jsonl"}}},
    "unsafe": {"unsafe_code": True},
}


def write_tasks(folder: Path, questions: int = 8) -> Path:
    """A folder of task files that take the place of the harness's own, their questions and a group of two of them."""
    import lm_eval.tasks

    own = Path(lm_eval.tasks.__file__).parent
    folder.mkdir(parents=True)
    for seed, (name, (file, make, asked)) in enumerate(TASKS.items()):
        draw = random.Random(seed)
        sizes = {"train": 6, "validation": 6, "dev": 6, asked: questions + (name == "mmlu_anatomy")}
        files = {}
        for split, size in sizes.items():
            files[split] = str(folder / f"{name}_{split}.jsonl")
            lines = [json.dumps(make(draw), ensure_ascii=False) + "\n" for _ in range(size)]
            Path(files[split]).write_text("".join(lines), encoding="utf-8")
        task = {
            "include": str(own / file),
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    for name, changes in REFUSED.items():
        task = {"include": "triviaqa.yaml", "task": name, **changes}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    (folder / "two_subjects.yaml").write_text(yaml.safe_dump(GROUP), encoding="utf-8")
    return folder
