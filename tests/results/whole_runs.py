"""A run directory as large as a real one (MMLU's 57 subjects), in all its files, made from a seed in a second."""

import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from clmed.results.rundir import RunDirectory

# benchmark: role, shots, questions a subject, accuracy of the base, change by naive training
EXAMS = {"cmexam": ("gain", 0, 60, 0.28, 0.14), "mmlu": ("retention", 5, 14, 0.55, -0.09)}
PERPLEXITY = "wikipedia"
STREAM = (("medical-pretraining", 3, 750_000_000), ("exam-finetuning", 1, 12_000_000))
CONFIG: dict[str, Any] = {
    "model": {"path": "meta-llama/Llama-2-13b-hf"},
    "data": {
        "encyclopedia": {"path": "encyclopedia.jsonl", "format": "text"},
        "general": {"path": "wikipedia.jsonl", "format": "text"},
    },
    "stream": [
        {"name": name, "data": ["encyclopedia"], "tokens": parts * size, "optimizer": {"lr": 2e-5}}
        for name, parts, size in STREAM
    ],
    "evaluation": {
        "gain": [{"benchmark": "cmexam", "path": "cmexam.csv"}],
        "retention": [{"benchmark": "mmlu", "shots": 5}, {"perplexity": "general", "name": PERPLEXITY}],
    },
    "training": {"sequence_length": 4096, "tokens_per_step": 2**20},
}
DISCIPLINES = ("临床医学", "中医学", "药学", "公共卫生", "口腔医学", "医学人文", "检验")
MMLU = {
    "STEM": """abstract_algebra astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning""",
    "humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions""",
    "social sciences": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy""",
    "other": """anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management
        marketing medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology""",
}
# How much of the base's losses a category takes, so that some lose most.
LOSES = {"STEM": 0.5, "humanities": 1.6, "social sciences": 1.1, "other": 0.7}


def whole_run(
    path: Path,
    *,
    name: str = "naive",
    seed: int = 0,
    keeps: float = 0.0,
    times: int = 1,
    points: int = 99,
    state: str = "complete",
    strategy: Mapping[str, Any] | None = None,
) -> Path:
    """keeps: the share of what naive training forgets this run keeps; times: so many questions; points: at most."""
    config = {**CONFIG, "name": name, "seed": seed, "strategy": strategy or {}}
    versions = {"clmed": "0.1.0", "torch": "2.14.1", "python": "3.11.9"}
    environment = {"versions": versions, "machine": "Linux", "device": "NVIDIA A100", "ranks": 8, "command": ["clmed"]}
    run = RunDirectory.create(path, yaml.safe_dump(config, allow_unicode=True), environment)
    noise = random.Random(seed)
    for point, place in enumerate(list(_points(5 / 4 if keeps else 1))[:points]):
        way = 1 - math.exp(-2.5 * place["tokens"] / 2.262e9)
        for benchmark, (role, shots, questions, base, change) in EXAMS.items():
            kept = (1 - keeps) if role == "retention" else (1 - 0.1 * keeps)
            columns = _answers(benchmark, questions * times, base, change * way * kept, noise)
            if not point:
                columns["question"] = [f"What is {number} of {benchmark}?" for number in range(len(columns["gold"]))]
            run.write_answers(point, benchmark, columns)
            common = {"point": point, **place, "role": role, "benchmark": benchmark, "shots": shots, "seconds": 61.5}
            run.add_results(common | score for score in _scores(columns))
        nats = 2.1 + 0.3 * way * (1 - keeps) + noise.gauss(0, 0.003)
        common = {"point": point, **place, "role": "retention", "benchmark": PERPLEXITY, "shots": 0, "seconds": 8.1}
        run.add_results([common | {"category": "all", "metric": "nats_per_token", "score": nats, "questions": 99_000}])
    run.add_trainings(_training(noise, replay=keeps > 0))
    run.set_status(state, "SIGTERM" if state == "stopped" else "")
    return path


def _points(replay: float) -> Iterator[dict[str, Any]]:
    """replay: all tokens for each one of the domain."""
    tokens = 0
    yield _place("base", 0, 0, True)
    for name, parts, size in STREAM:
        for part in range(1, parts + 1):
            tokens += size
            yield _place(name, tokens, round(replay * tokens), part == parts)


def _place(experience: str, tokens: int, every: int, final: bool) -> dict[str, Any]:
    counters = {"tokens": tokens, "all_tokens": every, "bytes": 4 * every, "flops": 7.8e10 * every}
    return {**counters, "experience": experience, "final": final, "train_seconds": tokens / 9e3}


def _questions(benchmark: str, each: int) -> Iterator[tuple[str, list[str], float]]:
    """Subject, categories, and how much of the change a question takes."""
    if benchmark == "cmexam":
        for number in range(each * 20):
            yield "cmexam", [DISCIPLINES[number % len(DISCIPLINES)]], 0.5 + number % 7 / 6
        return
    for category, subjects in MMLU.items():
        for subject in subjects.split():
            yield from ((subject, [category], LOSES[category]) for _ in range(each))


def _answers(benchmark: str, each: int, base: float, change: float, noise: random.Random) -> dict[str, list[Any]]:
    """A question keeps its difficulty at all points (by its number), so that answers flip as they really do."""
    columns: dict[str, list[Any]] = {key: [] for key in ("benchmark", "subject", "index", "categories", "gold")}
    columns |= {key: [] for key in ("shots", "tokens", "prompt_hash", "answers", "prediction", "correct")}
    for number, (subject, categories, takes) in enumerate(_questions(benchmark, each)):
        difficulty = random.Random(f"{benchmark} {number}").random()
        right = difficulty < base + takes * change + noise.gauss(0, 0.05)
        gold = "ABCD"[number % 4]
        values = (benchmark, subject, number % each, categories, gold, 5, 300, f"{number:016x}", list("ABCD"))
        wrong = "ABCD"[(number + 1 + int(difficulty * 3)) % 4]
        for key, value in zip(columns, (*values, gold if right else wrong, right), strict=True):
            columns[key].append(value)
    return columns


def _scores(columns: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    groups: dict[str, list[bool]] = {}
    for subject, categories, right in zip(columns["subject"], columns["categories"], columns["correct"], strict=True):
        several = [] if subject in EXAMS else [f"subject:{subject}"]
        for category in ("all", *categories, *several):
            groups.setdefault(category, []).append(right)
    for category, right in groups.items():
        score = {"category": category, "metric": "accuracy", "score": sum(right) / len(right), "questions": len(right)}
        yield score | {"constant": 0.26, "majority": 0.29, "skipped": 0}


def _training(noise: random.Random, replay: bool) -> Iterator[dict[str, Any]]:
    tokens = 0
    shares = {"encyclopedia": 0.8, "general": 0.2} if replay else {"encyclopedia": 1.0}
    for experience, parts, size in STREAM:
        for step in range(1, 41):
            tokens += parts * size // 40
            loss = 1.6 + 0.9 * math.exp(-step / 12) + noise.gauss(0, 0.02)
            row = {"experience": experience, "step": step, "tokens": tokens, "all_tokens": tokens, "bytes": 4 * tokens}
            row |= {"flops": 7.8e10 * tokens, "loss": loss, "grad_norm": 1.0, "lr": 2e-5 * (1 - step / 50)}
            row |= {f"loss/{source}": loss for source in shares} | {"tokens_per_second": 9e3}
            row |= {f"supervised/{source}": round(1e6 * share) for source, share in shares.items()}
            yield row | {f"share/{source}": share for source, share in shares.items()}
