"""lm-evaluation-harness on clmed's questions: task files in the harness's own language, one task a subject.

The prompts are written down a second time here, as a user of the harness would, and not taken from clmed.
"""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from clmed.evaluation.benchmarks import Benchmark, Question

TEXT = {
    ("mmlu", "letter"): "{{stem}}\nA. {{a}}\nB. {{b}}\nC. {{c}}\nD. {{d}}\nAnswer:",
    ("cmmlu", "letter"): "题目：{{stem}}\nA. {{a}}\nB. {{b}}\nC. {{c}}\nD. {{d}}\n答案是：",
    ("mmlu", "text"): "Question: {{stem}}\nAnswer:",
    ("cmmlu", "text"): "{% if han %}问题：{{stem}}\n答案：{% else %}Question: {{stem}}\nAnswer:{% endif %}",
}


def write_tasks(benchmark: Benchmark, folder: Path, *, shots: int, names: dict[str, str] | None = None) -> list[str]:
    """Task files and their questions in `folder`; the tasks' names, by subject in the benchmark's order.

    names: what a subject is called in its header, where that is not its own name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subjects = dict.fromkeys(question.subject for question in benchmark.questions)
    for subject in subjects:
        asked = [question for question in benchmark.questions if question.subject == subject]
        files = {"test": asked, "dev": benchmark.shots.get(subject, ())}
        for part, questions in files.items():
            lines = [json.dumps(_record(benchmark, q), ensure_ascii=False) + "\n" for q in questions]
            (folder / f"{subject}_{part}.jsonl").write_text("".join(lines), encoding="utf-8")
        called = (names or {}).get(subject, subject.replace("_", " "))
        task = _task(benchmark, subject, called, folder, [part for part, questions in files.items() if questions])
        (folder / f"{subject}.yaml").write_text(yaml.safe_dump({**task, "num_fewshot": shots}), encoding="utf-8")
    return [f"clmed_{benchmark.exam.name}_{subject}" for subject in subjects]


def _record(benchmark: Benchmark, question: Question) -> dict[str, Any]:
    text = benchmark.scoring == "text"
    options = list(question.options.values())
    han = any("\u4e00" <= character <= "\u9fff" for character in question.stem)
    # A subject has one delimiter for all its questions; of CMMLU's the few without Han end in "Answer:".
    space = "" if han or benchmark.exam.name == "mmlu" else " "
    return {
        "stem": question.stem.strip() if text else question.stem,
        **dict(zip("abcd", options, strict=True)),
        "han": han,
        "texts": [space + option.strip() for option in options],
        "gold": list(question.options).index(question.answer),
    }


def _task(benchmark: Benchmark, subject: str, called: str, folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    english = benchmark.exam.name == "mmlu"
    header = {
        "mmlu": f"The following are multiple choice questions (with answers) about {called}.\n\n",
        "cmmlu": f"以下是关于{called}的单项选择题，请直接给出正确答案的选项。\n\n",
    }
    letter = benchmark.scoring == "letter"
    return {
        "task": f"clmed_{benchmark.exam.name}_{subject}",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {part: str(folder / f"{subject}_{part}.jsonl") for part in parts},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "fewshot_split": "dev" if "dev" in parts else "test",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "description": header[benchmark.exam.name] if letter else "",
        "doc_to_text": TEXT[benchmark.exam.name, benchmark.scoring],
        "doc_to_choice": ["A", "B", "C", "D"] if letter else "texts",
        "doc_to_target": "gold",
        "target_delimiter": " " if english else "",
        "metric_list": [
            {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm", "acc_bytes")
        ],
    }


def quiet() -> None:
    """No progress bars and no chatter of the harness and of what it reads files with."""
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.disable(logging.WARNING)


def evaluate(
    model: Any, tokenizer: Any, folder: Path, tasks: Sequence[str], *, batch_size: int
) -> tuple[float, dict[str, list[dict[str, Any]]]]:
    """Seconds from loaded questions to scores, and each task's samples (one dict a question, in order).

    The harness's hf backend.
    """
    from lm_eval.evaluator import evaluate as harness
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=str(folder), include_defaults=False).load(list(tasks))
    positions = model.config.max_position_embeddings
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=positions)
    start = time.perf_counter()
    found = harness(lm, task_dict=loaded, bootstrap_iters=0)
    seconds = time.perf_counter() - start
    return seconds, {task: sorted(found["samples"][task], key=lambda sample: sample["doc_id"]) for task in tasks}
