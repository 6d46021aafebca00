"""Gain, retention, forgetting, transfer and their kin, from the rows of results.jsonl.

R[i][j] is the score on benchmark j at measurement point i; R[0] is the base model, T the last complete point. The
benchmarks exist from the start, unlike the tasks of a vision stream, so every difference is taken against R[0].
Every function works on whole benchmarks; `apart(rows, "category")` makes rows in which each category, or each subject,
is a benchmark of its own, and goes into any of them. docs/forgetting.md has the formulas beside each other.

Accuracies are shares in [0, 1]. A perplexity benchmark is scored in nats per token, where lower is better; such
scores are never averaged with accuracies. Tasks of lm-evaluation-harness have metrics of their own names, to which a
filter of the answers may be added ("exact_match,strict-match").
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Rows = Sequence[Mapping[str, Any]]
Key = tuple[str, str, str]  # benchmark, category, metric

ACCURACY = "accuracy"
NATS = "nats_per_token"
WHOLE = "all"
SUBJECT = "subject:"
LETTER = "letter:"  # how often each letter is predicted, which is no part of a benchmark
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
    return primary_metrics(rows).get(benchmark, ACCURACY)


def primary_metrics(rows: Rows) -> dict[str, str]:
    """`primary_metric` of every benchmark, in their order."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["category"] == WHOLE:
            found.setdefault(row["benchmark"], {})[row["metric"]] = None
    return {
        name: next((known for known in (NATS, ACCURACY) if known in metrics), next(iter(metrics)))
        for name, metrics in found.items()
    }


def primary(rows: Rows) -> dict[str, dict[int, float]]:
    """R restricted to whole benchmarks and their primary metrics: benchmark -> point -> score, in their order."""
    scores = matrix(rows)
    return {name: scores[name, WHOLE, metric] for name, metric in primary_metrics(rows).items()}


def apart(rows: Rows, level: Literal["category", "subject"]) -> list[dict[str, Any]]:
    """Rows in which each category, or each subject, of a benchmark is one of its own, named "mmlu/STEM"."""
    found = []
    for row in rows:
        category = row["category"]
        if category == WHOLE or category.startswith(LETTER) or category.startswith(SUBJECT) != (level == "subject"):
            continue
        name = f"{row['benchmark']}/{category.removeprefix(SUBJECT)}"
        found.append({**row, "benchmark": name, "category": WHOLE})
    return found


def ends(rows: Rows) -> dict[str, int]:
    """The last point of each experience that has come to its end, in their order."""
    return {row["experience"]: row["point"] for row in rows if row["point"] and row["final"]}


def last_point(rows: Rows) -> int:
    """T: the last point at which every benchmark was measured (a killed run may have begun the next one)."""
    points = [set(scores) for scores in primary(rows).values()]
    return max(set.intersection(*points), default=0) if points else 0


def gain(rows: Rows) -> float | None:
    """Domain gain: mean over the gain benchmarks j of R[T][j] − R[0][j], in accuracy; None without such a benchmark.

    Source: the difference to the starting model as in the General Ability Delta of TRACE (Wang et al. 2023, arXiv
    2310.06762), here over the domain's benchmarks.
    """
    return _mean_difference(rows, "gain", last_point(rows))


def retention(rows: Rows) -> float | None:
    """Mean over the retention benchmarks j of R[T][j] − R[0][j], in accuracy; None without such a benchmark.

    Source: General Ability Delta, TRACE (Wang et al. 2023, arXiv 2310.06762). Negative: general ability was lost.
    """
    return _mean_difference(rows, "retention", last_point(rows))


def forgetting(rows: Rows) -> dict[str, float]:
    """Per benchmark, how far the last score lies below the best earlier one: max over i < T of R[i][j], minus R[T][j].

    For a metric where lower is better: R[T][j] minus the min. So positive always means forgotten, negative improved.
    Source: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", ECCV; here the base model is among the
    earlier points. Empty as long as the base is all there is.
    """
    last, metrics = last_point(rows), primary_metrics(rows)
    result = {}
    for benchmark, points in primary(rows).items():
        earlier = [score for point, score in points.items() if point < last]
        if not earlier:
            continue
        lower = lower_is_better(metrics[benchmark])
        result[benchmark] = points[last] - min(earlier) if lower else max(earlier) - points[last]
    return result


def mean_forgetting(rows: Rows) -> float | None:
    """The mean forgetting of the retention benchmarks, in accuracy; None without one that was measured twice."""
    return _mean([value for name, value in forgetting(rows).items() if name in _accuracies(rows, "retention")])


def average_accuracy(rows: Rows, point: int | None = None) -> float | None:
    """Mean over all benchmarks j of R[i][j], in accuracy, at a point i or the last one; None without accuracies.

    Source: ACC of GEM (Lopez-Paz & Ranzato 2017, arXiv 1706.08840).
    """
    at = last_point(rows) if point is None else point
    return _mean([points[at] for points in _accuracies(rows).values() if at in points])


def general_ability_delta(rows: Rows) -> dict[str, float]:
    """After each experience t, the mean over the retention benchmarks j of R[t][j] - R[0][j], in accuracy.

    Source: General Ability Delta, TRACE (Wang et al. 2023, arXiv 2310.06762). The last one is `retention`.
    """
    found = {name: _mean_difference(rows, "retention", end) for name, end in ends(rows).items()}
    return {name: value for name, value in found.items() if value is not None}


def backward_transfer(rows: Rows, learnt: Mapping[str, str] | None = None) -> dict[str, float]:
    """Per benchmark j, R[T][j] - R[l][j], where l is the end of the experience that teaches j: negative is forgetting.

    learnt: benchmark -> experience. By default the base knows the retention benchmarks (l = 0), and the last experience
    teaches the others, which have no backward transfer then: nothing comes after it. Perplexities count upside down, so
    that positive is better everywhere.
    Source: BWT of GEM (Lopez-Paz & Ranzato 2017, arXiv 1706.08840), which is its mean.
    """
    taught, last, metrics = _taught(rows, learnt), last_point(rows), primary_metrics(rows)
    return {
        name: _better(metrics[name], points[last], points[taught[name]])
        for name, points in primary(rows).items()
        if last in points and taught.get(name, last) < last and taught[name] in points
    }


def forward_transfer(rows: Rows, learnt: Mapping[str, str] | None = None) -> dict[str, float]:
    """Per benchmark j, R[l - 1][j] - R[0][j]: what the experiences before the one that teaches j did for it.

    learnt: as for `backward_transfer`; what the base knows, or the first experience teaches, has none. The difference
    is to the base instead of a random initialisation.
    Source: FWT of GEM (Lopez-Paz & Ranzato 2017, arXiv 1706.08840), which is its mean.
    """
    taught, before, metrics = _taught(rows, learnt), [0, *ends(rows).values()], primary_metrics(rows)
    found = {}
    for name, points in primary(rows).items():
        earlier = max((end for end in before if end < taught.get(name, 0)), default=0)
        if earlier and {0, earlier} <= points.keys():
            found[name] = _better(metrics[name], points[earlier], points[0])
    return found


def intransigence(rows: Rows, joint: Rows, learnt: Mapping[str, str] | None = None) -> dict[str, float]:
    """Per gain benchmark j, what joint training reaches minus R[l][j]: what was not learnt for the sake of the old.

    joint: the rows of a run of the strategy `joint`, at its last point. learnt: as for `backward_transfer`.
    Source: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", ECCV, arXiv 1801.10112.
    """
    taught, metrics = _taught(rows, learnt), primary_metrics(rows)
    reached, last = primary(joint), last_point(joint)
    gains = {row["benchmark"] for row in rows if row["role"] == "gain"}
    return {
        name: _better(metrics[name], reached[name][last], points[taught[name]])
        for name, points in primary(rows).items()
        if name in gains and last in reached.get(name, {}) and taught.get(name) in points
    }


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A measurement point; below: how far it lies below the base; regained: how far the experience's end above it."""

    point: int
    experience: str
    tokens: int
    score: float
    below: float
    regained: float


def worst_moments(rows: Rows) -> dict[str, Moment]:
    """Per benchmark, the worst point after the base: inside an experience more may be lost than at its end.

    Source: the stability gap and min-ACC of De Lange et al. 2023, "Continual evaluation for lifelong learning", ICLR,
    arXiv 2205.13452, over the points that were measured. regained: 0 where the end was not measured yet.
    """
    where, metrics = {row["point"]: row for row in rows}, primary_metrics(rows)
    found = {}
    for name, points in primary(rows).items():
        later = {point: score for point, score in points.items() if point}
        if not later or 0 not in points:
            continue
        point = min(later, key=lambda at: _better(metrics[name], later[at], points[0]))
        end = next((at for at in ends(rows).values() if at >= point and at in points), point)
        found[name] = Moment(
            point=point,
            experience=where[point]["experience"],
            tokens=where[point]["tokens"],
            score=points[point],
            below=-_better(metrics[name], points[point], points[0]),
            regained=_better(metrics[name], points[end], points[point]),
        )
    return found


def _taught(rows: Rows, learnt: Mapping[str, str] | None) -> dict[str, int]:
    """Of each benchmark, the point at the end of the experience that teaches it; 0 is the base."""
    finished = ends(rows)
    last = max(finished.values(), default=0)
    given = learnt or {}
    return {
        row["benchmark"]: finished[given[row["benchmark"]]]
        if given.get(row["benchmark"]) in finished
        else (0 if row["role"] == "retention" else last)
        for row in rows
    }


def _better(metric: str, score: float, than: float) -> float:
    """How much better a score is than another one, in its own unit."""
    return than - score if lower_is_better(metric) else score - than


def _accuracies(rows: Rows, role: str | None = None) -> dict[str, dict[int, float]]:
    """`primary` of the benchmarks (of a role) that are scored in accuracy."""
    roles, metrics = {row["benchmark"]: row["role"] for row in rows}, primary_metrics(rows)
    return {
        name: points
        for name, points in primary(rows).items()
        if role in (None, roles[name]) and is_accuracy(metrics[name])
    }


def _mean_difference(rows: Rows, role: Literal["gain", "retention"], point: int) -> float | None:
    known = [points for points in _accuracies(rows, role).values() if {0, point} <= points.keys()]
    return _mean([points[point] - points[0] for points in known])


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
