"""Rows of a run that might have been, for the tests of tables and figures."""

import math
import random

STREAM = (("medical-pretraining", 3, 400_000), ("exam-finetuning", 1, 120_000))
# benchmark: role, categories, score of the base, change by the end of the stream (naive training)
BENCHMARKS = {
    "synthetic-cmexam": ("gain", ("covered", "uncovered"), 0.25, 0.32),
    "synthetic-mmlu": ("retention", ("STEM", "humanities", "social", "other"), 0.62, -0.21),
    "synthetic-cmmlu": ("retention", (), 0.55, -0.15),
    "general_perplexity": ("retention", (), 2.31, 0.55),
}


def lifelike_rows(*, seed=0, keeps=0.0, stream=STREAM, benchmarks=BENCHMARKS, unmeasured=0) -> list[dict]:
    """Rows of a run that loses (1 − keeps) of what naive training loses; scores wobble by the seed."""
    points, tokens = [("base", 0, True)], 0
    for name, parts, size in stream:
        points += [(name, tokens + size * part // parts, part == parts) for part in range(1, parts + 1)]
        tokens += size
    noise, rows = random.Random(seed), []
    for point, (experience, trained, final) in enumerate(points[: len(points) - unmeasured]):
        way = 1 - math.exp(-2.5 * trained / tokens)
        for benchmark, (role, split, base, change) in benchmarks.items():
            perplexity = benchmark.endswith("perplexity")
            for number, category in enumerate(("all", *split, "subject:anatomy")):
                if perplexity and number:
                    continue
                share = (1 - keeps) if role == "retention" else (1 - 0.15 * keeps)
                score = base + share * change * way * (1 + (0, 0.25, -0.4, 0.1, -0.1, 0)[number % 6])
                score += noise.gauss(0, 0.012) if point else 0.0
                rows.append(
                    {"point": point, "tokens": trained, "all_tokens": trained, "experience": experience, "role": role}
                    | {"benchmark": benchmark, "shots": 0 if role == "gain" else 5, "category": category}
                    | {"metric": "nats_per_token" if perplexity else "accuracy", "score": score}
                    | {"questions": 500, "seconds": 2.0, "train_seconds": trained / 1e4, "final": final}
                )
    return rows


def training_rows(*, seed=0, stream=STREAM, sources=(("texts", "qa"), ("exam",)), shares=None, steps=120) -> list[dict]:
    """Rows of train.jsonl: losses that fall, a source's share as given (equal by default), `steps` an experience."""
    noise, rows, before = random.Random(seed), [], 0
    for (name, _, size), names in zip(stream, sources, strict=True):
        for step in range(1, steps + 1):
            row = {"experience": name, "step": step, "tokens": before + size * step // steps, "lr": 1e-3 * step / steps}
            for number, source in enumerate(names):
                row[f"loss/{source}"] = 3 * math.exp(-step / steps) + number + noise.gauss(0, 0.1)
                row[f"share/{source}"] = (shares or {}).get(source, 1 / len(names))
            rows.append(row)
        before += size
    return rows
