"""What of a lost accuracy is format and what knowledge: by hand, with shots, and how it is told."""

import pytest

from clmed.results.drops import against_base, drops

BASE = {"accuracy": 0.70, "accuracy_calibrated": 0.72, "accuracy_0_shot": 0.60, "accuracy_0_shot_calibrated": 0.64}
NOW = {"accuracy": 0.66, "accuracy_calibrated": 0.69, "accuracy_0_shot": 0.40, "accuracy_0_shot_calibrated": 0.54}


def rows(scores: dict[str, float], point: int = 0) -> list[dict]:
    common = {"benchmark": "mmlu", "role": "retention", "point": point, "shots": 5, "category": "all", "questions": 100}
    return [{**common, "metric": metric, "score": score} for metric, score in scores.items()]


def found(base: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    return {row["metric"]: pytest.approx(row["score"]) for row in against_base(rows(base), rows(now))}


def only(scores: dict[str, float], *metrics: str) -> dict[str, float]:
    return {metric: scores[metric] for metric in metrics}


def test_by_hand():
    """Lost 20 points without shots: calibration alone leaves 10, shots alone 4, both 3."""
    assert found({**BASE, "accuracy_text": 0.5}, {**NOW, "accuracy_text": 0.45}) == {
        "drop_shots": 0.16,
        "drop_calibration": 0.10,
        "drop_format": 0.17,
        "drop_knowledge": 0.03,
        "drop_text": 0.05,
        "letter_shift_from_base": 0.0,
    }


def test_what_is_not_measured_is_not_reckoned():
    calibrated = ("accuracy", "accuracy_calibrated")
    assert found(only(BASE, *calibrated), only(NOW, *calibrated)) == {
        "drop_calibration": 0.01,
        "drop_format": 0.01,
        "drop_knowledge": 0.03,
        "letter_shift_from_base": 0.0,
    }
    several = ("accuracy", "accuracy_0_shot")  # letter sets, whose prior is not taken out
    assert found(only(BASE, *several), only(NOW, *several)) == {
        "drop_shots": 0.16,
        "drop_format": 0.16,
        "drop_knowledge": 0.04,
    }
    assert found(only(BASE, "accuracy"), only(NOW, "accuracy")) == {}
    assert against_base([], []) == against_base(rows({"nats_per_token": 2.0}), rows({"nats_per_token": 2.1})) == []


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (
            [*BASE, "accuracy_text"],
            "mmlu −20.0 points without shots; given back by calibration 10.0, by 5 shots 16.0, together 17.0 (format); "
            "not given back 3.0 (knowledge); by text −5.0 points",
        ),
        (
            ["accuracy", "accuracy_calibrated"],
            "mmlu −4.0 points; given back by calibration 1.0 (format); not given back 3.0 (knowledge)",
        ),
        (["accuracy", "accuracy_text"], "mmlu −4.0 points; by text −5.0 points"),
    ],
)
def test_told(metrics: list[str], told: str) -> None:
    base, now = {**BASE, "accuracy_text": 0.5}, {**NOW, "accuracy_text": 0.45}
    first, later = rows(only(base, *metrics)), rows(only(now, *metrics), point=1)
    further = [{**later[0], **row} for row in against_base(first, later)]
    assert drops([*first, *later, *further]) == [told]
    better = [{**row, "score": 1.0} for row in later]
    assert drops([*first, *better, *({**later[0], **row} for row in against_base(first, better))]) == []
    assert drops(first) == []
