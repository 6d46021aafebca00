"""Gain, retention and forgetting, from the rows of results.jsonl.

R[i][j] is the score on benchmark j at measurement point i; R[0] is the base model, T the last complete point. The
benchmarks exist from the start, unlike the tasks of a vision stream, so every difference is taken against R[0].
Accuracies are shares in [0, 1]. A perplexity benchmark is scored in nats per token, where lower is better; such
scores are never averaged with accuracies. Tasks of lm-evaluation-harness have metrics of their own names, to which a
filter of the answers may be added ("exact_match,strict-match").
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Rows = Sequence[Mapping[str, Any]]
Key = tuple[str, str, str]  # benchmark, category, metric

ACCURACY = "accuracy"
NATS = "nats_per_token"
WHOLE = "all"
ACCURACIES = frozenset({ACCURACY, "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em"})
PERPLEXITIES = frozenset({"perplexity", "word_perplexity", "byte_perplexity"})
LOWER_IS_BETTER = frozenset({NATS, *PERPLEXITIES, "bits_per_byte", "brier_score", "ter", "wer"})


def is_accuracy(metric: str) -> bool:
    """Whether it is a share of questions that were answered rightly."""
    return metric.partition(",")[0] in ACCURACIES


def lower_is_better(metric: str) -> bool:
    """As of perplexities."""
    return metric.partition(",")[0] in LOWER_IS_BETTER


def as_shown(metric: str) -> tuple[int, int]:
    """(scale, digits): accuracies are shown in %, with one digit after the point."""
    return (100, 1) if is_accuracy(metric) else (1, 3)


def matrix(rows: Rows) -> dict[Key, dict[int, float]]:
    """R: for each (benchmark, category, metric) its score at each point. Measured twice, the last one counts."""
    scores: dict[Key, dict[int, float]] = {}
    for row in rows:
        scores.setdefault((row["benchmark"], row["category"], row["metric"]), {})[row["point"]] = row["score"]
    return {key: dict(sorted(points.items())) for key, points in scores.items()}


def primary_metric(rows: Rows, benchmark: str) -> str:
    """The metric that figures and averages use: accuracy, nats per token for a perplexity benchmark; else its first."""
    metrics = [row["metric"] for row in rows if row["benchmark"] == benchmark and row["category"] == WHOLE]
    return next((known for known in (NATS, ACCURACY) if known in metrics), metrics[0] if metrics else ACCURACY)


def primary(rows: Rows) -> dict[str, dict[int, float]]:
    """R restricted to whole benchmarks and their primary metrics: benchmark -> point -> score, in their order."""
    scores = matrix(rows)
    keys = {name: (name, WHOLE, primary_metric(rows, name)) for name in dict.fromkeys(row["benchmark"] for row in rows)}
    return {name: scores[key] for name, key in keys.items() if key in scores}


def last_point(rows: Rows) -> int:
    """T: the last point at which every benchmark was measured (a killed run may have begun the next one)."""
    points = [set(scores) for scores in primary(rows).values()]
    return max(set.intersection(*points), default=0) if points else 0


def gain(rows: Rows) -> float | None:
    """Domain gain: mean over the gain benchmarks j of R[T][j] − R[0][j], in accuracy; None without such a benchmark.

    Source: the difference to the starting model as in the General Ability Delta of TRACE (Wang et al. 2023, arXiv
    2310.06762), here over the domain's benchmarks.
    """
    return _mean_delta(rows, "gain")


def retention(rows: Rows) -> float | None:
    """Mean over the retention benchmarks j of R[T][j] − R[0][j], in accuracy; None without such a benchmark.

    Source: General Ability Delta, TRACE (Wang et al. 2023, arXiv 2310.06762). Negative: general ability was lost.
    """
    return _mean_delta(rows, "retention")


def forgetting(rows: Rows) -> dict[str, float]:
    """Per benchmark, how far the last score lies below the best earlier one: max over i < T of R[i][j], minus R[T][j].

    For a metric where lower is better: R[T][j] minus the min. So positive always means forgotten, negative improved.
    Source: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", ECCV; here the base model is among the
    earlier points. Empty as long as the base is all there is.
    """
    last = last_point(rows)
    result = {}
    for benchmark, points in primary(rows).items():
        earlier = [score for point, score in points.items() if point < last]
        if not earlier:
            continue
        lower = lower_is_better(primary_metric(rows, benchmark))
        result[benchmark] = points[last] - min(earlier) if lower else max(earlier) - points[last]
    return result


def _mean_delta(rows: Rows, role: Literal["gain", "retention"]) -> float | None:
    roles = {row["benchmark"]: row["role"] for row in rows}
    last = last_point(rows)
    differences = [
        points[last] - points[0]
        for benchmark, points in primary(rows).items()
        if roles[benchmark] == role and is_accuracy(primary_metric(rows, benchmark)) and 0 in points
    ]
    return statistics.fmean(differences) if differences else None
