"""Transfer, intransigence, the worst moment and their kin: by hand, and against Avalanche's own functions."""

import numpy as np
import pytest

from clmed.results import metrics

# Base, inside the first experience, its end, the end of the second.
POINTS = [("base", True, 0), ("one", False, 50), ("one", True, 100), ("two", True, 150)]
TABLE = {
    "exam": ("gain", "accuracy", [0.20, 0.35, 0.30, 0.60]),
    "mmlu": ("retention", "accuracy", [0.60, 0.30, 0.50, 0.45]),
    "cmmlu": ("retention", "accuracy", [0.40, 0.42, 0.46, 0.44]),
    "wiki": ("retention", "nats_per_token", [2.0, 2.9, 2.5, 2.6]),
}


def rows_of(table=TABLE, points=POINTS, category="all"):
    return [
        {"point": number, "experience": experience, "final": final, "tokens": tokens, "category": category}
        | {"benchmark": name, "role": role, "metric": metric, "score": score}
        for name, (role, metric, scores) in table.items()
        for number, ((experience, final, tokens), score) in enumerate(zip(points, scores, strict=True))
    ]


def test_ends_are_the_last_points_of_finished_experiences():
    assert metrics.ends(rows_of()) == {"one": 2, "two": 3}
    assert metrics.ends([row for row in rows_of() if row["point"] < 2]) == {}


def test_averages_by_hand():
    rows = rows_of()
    assert metrics.average_accuracy(rows) == pytest.approx((0.60 + 0.45 + 0.44) / 3)
    assert metrics.average_accuracy(rows, 0) == pytest.approx(0.40)
    assert metrics.mean_forgetting(rows) == pytest.approx((0.15 + 0.02) / 2)
    assert metrics.general_ability_delta(rows) == pytest.approx({"one": (-0.10 + 0.06) / 2, "two": (-0.15 + 0.04) / 2})
    assert metrics.general_ability_delta(rows)["two"] == pytest.approx(metrics.retention(rows))


def test_transfer_by_hand():
    rows = rows_of()
    assert metrics.backward_transfer(rows) == pytest.approx({"mmlu": -0.15, "cmmlu": 0.04, "wiki": -0.6})
    assert metrics.forward_transfer(rows) == pytest.approx({"exam": 0.10})  # what the first experience did for it
    taught = {"exam": "one", "wiki": "two"}
    assert metrics.backward_transfer(rows, taught) == pytest.approx({"exam": 0.30, "mmlu": -0.15, "cmmlu": 0.04})
    assert metrics.forward_transfer(rows, taught) == pytest.approx({"wiki": -0.5})


def test_intransigence_by_hand():
    joint = rows_of(
        {name: (role, m, [s[0], s[3] + 0.1]) for name, (role, m, s) in TABLE.items()}, [POINTS[0], POINTS[3]]
    )
    assert metrics.intransigence(rows_of(), joint) == pytest.approx({"exam": 0.10})
    assert metrics.intransigence(rows_of(), joint, {"exam": "one"}) == pytest.approx({"exam": 0.40})
    assert metrics.intransigence(rows_of(), []) == {}


def test_the_worst_moment_may_lie_inside_an_experience():
    found = metrics.worst_moments(rows_of())
    mmlu = found["mmlu"]
    assert (mmlu.point, mmlu.experience, mmlu.tokens, mmlu.score) == (1, "one", 50, 0.30)
    assert (mmlu.below, mmlu.regained) == pytest.approx((0.30, 0.20))
    assert (found["wiki"].point, found["wiki"].below, found["wiki"].regained) == (
        1,
        pytest.approx(0.9),
        pytest.approx(0.4),
    )
    assert found["cmmlu"].below == pytest.approx(-0.02)  # never below the base
    assert metrics.worst_moments([row for row in rows_of() if row["point"] == 0]) == {}


def test_categories_and_subjects_go_into_every_function():
    parts = rows_of({"mmlu": ("retention", "accuracy", [0.8, 0.2, 0.6, 0.4])}, category="STEM")
    parts += rows_of({"mmlu": ("retention", "accuracy", [0.5, 0.5, 0.5, 0.7])}, category="subject:anatomy")
    parts += rows_of({"mmlu": ("retention", "predicted", [0.2, 0.3, 0.4, 0.5])}, category="letter:A")
    rows = rows_of() + parts
    assert metrics.forgetting(metrics.apart(rows, "category")) == pytest.approx({"mmlu/STEM": 0.4})
    assert metrics.backward_transfer(metrics.apart(rows, "subject")) == pytest.approx({"mmlu/anatomy": 0.2})
    assert metrics.worst_moments(metrics.apart(rows, "category"))["mmlu/STEM"].point == 1


def test_a_square_matrix_gives_what_avalanche_gives():
    """Four experiences, each with a benchmark of its own that it teaches, as in vision streams."""
    from avalanche.evaluation.metrics.forgetting_bwt import BWT, Forgetting
    from avalanche.evaluation.metrics.forward_transfer import ForwardTransfer

    scores = np.random.default_rng(0).random((5, 4))  # base and four ends, by benchmark
    points = [("base", True, 0), *((f"e{i}", True, i) for i in range(1, 5))]
    rows = rows_of({f"b{j}": ("gain", "accuracy", list(scores[:, j])) for j in range(4)}, points)
    taught = {f"b{j}": f"e{j + 1}" for j in range(4)}
    backward, forgotten, forward = BWT(), Forgetting(), ForwardTransfer()
    for j in range(4):
        for metric in (backward, forgotten):
            metric.update(f"b{j}", scores[j + 1, j], initial=True)
            metric.update(f"b{j}", scores[4, j])
        forward.update(f"b{j}", scores[0, j], initial=True)
        forward.update(f"b{j}", scores[j, j])
    ours = metrics.backward_transfer(rows, taught)
    assert ours == pytest.approx({key: value for key, value in backward.result().items() if key != "b3"})
    assert {key: -value for key, value in ours.items()} == pytest.approx(
        {key: value for key, value in forgotten.result().items() if key != "b3"}
    )
    assert metrics.forward_transfer(rows, taught) == pytest.approx(
        {key: value for key, value in forward.result().items() if key != "b0"}
    )
    # Avalanche's forgetting starts where a task was taught, Chaudhry's at the best point of all.
    assert all(metrics.forgetting(rows)[key] >= value - 1e-12 for key, value in forgotten.result().items())
