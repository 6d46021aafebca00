"""Gain, retention and forgetting against tables computed by hand."""

import pytest

from clmed.results import metrics


def rows_of(table: dict[str, tuple[str, str, list[float]]]) -> list[dict]:
    """benchmark -> (role, metric, score at each point)."""
    return [
        {"point": point, "benchmark": name, "role": role, "category": "all", "metric": metric, "score": score}
        for name, (role, metric, scores) in table.items()
        for point, score in enumerate(scores)
    ]


TABLE = {
    "exam": ("gain", "accuracy", [0.20, 0.50, 0.40]),
    "other_exam": ("gain", "accuracy", [0.30, 0.30, 0.60]),
    "mmlu": ("retention", "accuracy", [0.60, 0.50, 0.45]),
    "cmmlu": ("retention", "accuracy", [0.40, 0.45, 0.43]),
    "wiki": ("retention", "nats_per_token", [2.0, 2.5, 2.3]),
}


def test_gain_and_retention_average_accuracies_and_leave_perplexity_out():
    rows = rows_of(TABLE)
    assert metrics.gain(rows) == pytest.approx((0.20 + 0.30) / 2)
    assert metrics.retention(rows) == pytest.approx((-0.15 + 0.03) / 2)


def test_without_an_accuracy_there_is_no_retention():
    assert metrics.retention(rows_of({"exam": TABLE["exam"], "wiki": TABLE["wiki"]})) is None


def test_forgetting_is_the_fall_from_the_best_earlier_point():
    expected = {"exam": 0.10, "other_exam": -0.30, "mmlu": 0.15, "cmmlu": 0.02, "wiki": 0.3}
    assert metrics.forgetting(rows_of(TABLE)) == pytest.approx(expected)


def test_a_point_measured_in_part_does_not_count_as_the_last_one():
    rows = [row for row in rows_of(TABLE) if not (row["point"] == 2 and row["benchmark"] == "mmlu")]
    assert metrics.last_point(rows) == 1
    assert metrics.gain(rows) == pytest.approx((0.30 + 0.0) / 2)
    assert metrics.retention(rows) == pytest.approx((-0.10 + 0.05) / 2)


def test_other_categories_and_metrics_stay_out_of_the_averages():
    rows = rows_of(TABLE)
    noise = [{**row, "category": "subject:anatomy", "score": 0.0} for row in rows if row["point"] == 2]
    noise += [{**row, "metric": "weighted_f1", "score": 1.0} for row in rows if row["benchmark"] == "exam"]
    assert metrics.gain(rows + noise) == metrics.gain(rows)
    assert metrics.forgetting(rows + noise) == metrics.forgetting(rows)


def test_the_base_alone_has_neither_forgetting_nor_change():
    rows = [row for row in rows_of(TABLE) if row["point"] == 0]
    assert metrics.forgetting(rows) == {}
    assert metrics.gain(rows) == 0
    assert metrics.forgetting([]) == {} and metrics.gain([]) is None


def test_a_score_measured_again_replaces_the_old_one():
    rows = rows_of(TABLE)
    again = {**rows[2], "score": 0.9}
    assert metrics.matrix([*rows, again])["exam", "all", "accuracy"][2] == 0.9


def test_metrics_of_other_tools_are_known_by_their_names():
    """The first one of a benchmark counts; a filter of the answers is part of the name."""
    other = {
        "gsm8k": ("gain", "exact_match,strict-match", [0.10, 0.30]),
        "wikitext": ("retention", "word_perplexity", [20.0, 25.0]),
        "wmt": ("retention", "bleu", [30.0, 20.0]),
        "hellaswag": ("retention", "acc", [0.50, 0.40]),
    }
    rows = rows_of(other)
    rows += [{**row, "metric": "acc_norm", "score": 1.0} for row in rows if row["benchmark"] == "hellaswag"]
    assert {name: metrics.primary_metric(rows, name) for name in other} == {
        n: metric for n, (_, metric, _) in other.items()
    }
    assert metrics.gain(rows) == pytest.approx(0.20)
    assert metrics.retention(rows) == pytest.approx(-0.10)
    expected = {"gsm8k": -0.20, "wikitext": 5.0, "wmt": 10.0, "hellaswag": 0.10}
    assert metrics.forgetting(rows) == pytest.approx(expected)
    assert metrics.as_shown("exact_match,strict-match") == (100, 1) and metrics.as_shown("bleu") == (1, 3)
