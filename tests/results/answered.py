"""Small run directories with the answers to every question, for the tests of intervals and comparisons."""

from pathlib import Path
from typing import Any

import numpy as np

from clmed.results.rundir import RunDirectory
from clmed.yamlfile import dump

# benchmark: role, share right at the base, number of questions, number of subjects
EXAMS = {"exam": ("gain", 0.25, 160, 4), "mmlu": ("retention", 0.7, 200, 10), "cmmlu": ("retention", 0.6, 120, 8)}


def answered_run(
    path: Path,
    *,
    name: str = "naive",
    seed: int = 0,
    strategy: dict[str, Any] | None = None,
    learns: float = 0.4,
    forgets: float = 0.3,
    exams: dict[str, tuple] = EXAMS,
    state: str = "complete",
    shots: int = 0,
    tokens: int = 100_000,
    config: dict[str, Any] | None = None,
    first: dict[str, int] | None = None,
    points: int = 3,
) -> Path:
    """A run that answers `learns` of what the base could not on gain benchmarks, and loses `forgets` on the others.

    Two experiences, each measured at its end; half of the change comes by the first. cmmlu is averaged over subjects.
    first: benchmark -> the first question asked of it.
    """
    written = {"name": name, "seed": seed, "strategy": strategy or {}, **(config or {})}
    run = RunDirectory.create(path, dump(written), {})
    for point, experience in enumerate(("base", "one", "two")[:points]):
        for benchmark, (role, share, questions, subjects) in exams.items():
            start = (first or {}).get(benchmark, 0)
            index = np.arange(questions) + start
            right = answers(benchmark, role, share, index, point, seed, name, learns, forgets)
            of = np.array([f"{benchmark}-{number % subjects}" for number in index])
            run.write_answers(point, benchmark, columns(benchmark, of, index, right, shots))
            common = {"point": point, "tokens": tokens * point // 2, "all_tokens": tokens * point // 2}
            common |= {"flops": 1e9 * point, "train_seconds": 5.0 * point, "experience": experience, "final": True}
            common |= {"seconds": 1.0}
            common |= {"role": role, "benchmark": benchmark, "shots": shots, "metric": "accuracy"}
            means = {subject: float(right[of == subject].mean()) for subject in sorted(set(of))}
            whole = float(np.mean(list(means.values()))) if benchmark == "cmmlu" else float(right.mean())
            scores = {"all": whole, **{f"subject:{subject}": mean for subject, mean in means.items()}}
            run.add_results([{**common, "category": c, "score": s, "questions": questions} for c, s in scores.items()])
    run.set_status(state, "a test")
    return path


def answers(
    benchmark: str,
    role: str,
    share: float,
    index: np.ndarray,
    point: int,
    seed: int,
    name: str,
    learns: float,
    forgets: float,
) -> np.ndarray:
    """Whether each question is answered rightly: at the base the same in every run, later by name and seed."""
    every = index.max() + 1
    base = np.random.default_rng([len(benchmark), every]).random(every) < share
    # A question has its own place in the order in which things are lost, the same for all seeds but for some noise.
    order = np.random.default_rng([len(benchmark), every, 1]).random(every)
    order = order + 0.2 * np.random.default_rng([seed, len(name), *name.encode()]).random(every)
    turned = order / 1.2 < (learns if role == "gain" else forgets) * point / 2
    return (np.where(turned, role == "gain", base) | (base & (role == "gain")))[index]


def columns(benchmark: str, subjects: np.ndarray, index: np.ndarray, right: np.ndarray, shots: int) -> dict[str, Any]:
    """As clmed.evaluation.record names them."""
    return {
        "benchmark": [benchmark] * len(index),
        "subject": subjects.tolist(),
        "index": index.tolist(),
        "gold": ["A"] * len(index),
        "prediction": ["A" if each else "B" for each in right],
        "correct": right.tolist(),
        "prompt_hash": [f"{benchmark}-{shots}-{number:04x}" for number in index],
        "log_likelihoods": [[-1.0, -2.0]] * len(index),
    }
