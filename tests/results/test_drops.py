"""What of a lost accuracy is format and what knowledge: by hand, with shots, and how it is told."""

from typing import Any

import numpy as np
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


ENDS = ("", "_calibrated", "_0_shot", "_0_shot_calibrated", "_text")


def answered(seed: int, right: float, sizes: tuple[int, ...]) -> dict[str, Any]:
    """A record of as many questions in each subject; the ways agree on most of them."""
    draw = np.random.default_rng(seed)
    known = draw.random(sum(sizes)) < right
    said = {f"prediction{end}": np.where(known ^ (draw.random(len(known)) < 0.2), "A", "B").tolist() for end in ENDS}
    subjects = np.repeat([f"s{n}" for n in range(len(sizes))], sizes).tolist()
    return {"subject": subjects, "gold": ["A"] * len(known), **said}


@pytest.mark.parametrize("by_subject", [False, True])
def test_intervals_are_those_of_questions_drawn_again(by_subject: bool) -> None:
    """By drawing the rows themselves, within subjects where the mean is over subjects."""
    sizes = (300, 200, 100)
    before, after = answered(0, 0.7, sizes), answered(1, 0.5, sizes)
    subjects = np.array(before["subject"])

    def losses(chosen: np.ndarray) -> dict[str, float]:
        found = {}
        for end in ENDS:
            then, now = (np.array(record[f"prediction{end}"]) == "A" for record in (before, after))
            lost = then.astype(float) - now
            parts = [lost[chosen[subjects[chosen] == s]] for s in np.unique(subjects)] if by_subject else [lost[chosen]]
            found[f"accuracy{end}"] = float(np.mean([part.mean() for part in parts]))
        return found

    every = np.arange(sum(sizes))
    whole = losses(every)
    zero = dict.fromkeys(whole, 0.0)
    found = against_base(rows(whole), rows(zero), before, after, by_subject=by_subject)
    draw = np.random.default_rng(2)
    places = [np.flatnonzero(subjects == s) for s in np.unique(subjects)] if by_subject else [every]
    drawn = []
    for _ in range(1_000):
        sample = losses(np.concatenate([draw.choice(part, len(part)) for part in places]))
        drawn.append([row["score"] for row in against_base(rows(sample), rows(zero))][:5])
    ends = np.percentile(drawn, (2.5, 97.5), axis=0)
    shown = [row for row in found if "low" in row]
    assert [row["metric"] for row in shown] == [
        "drop_shots", "drop_calibration", "drop_format", "drop_knowledge", "drop_text",
    ]  # fmt: skip
    np.testing.assert_allclose([[row[key] for row in shown] for key in ("low", "high")], ends, atol=0.015)
    assert all(row["low"] < row["score"] < row["high"] for row in shown)


def test_intervals_are_told() -> None:
    before, after = answered(0, 0.9, (100,)), answered(0, 0.9, (100,))
    after["prediction_calibrated"] = ["B"] * 30 + before["prediction_calibrated"][30:]
    base, now = {"accuracy": 0.9, "accuracy_calibrated": 0.9}, {"accuracy": 0.6, "accuracy_calibrated": 0.7}
    first, later = rows(base), rows(now, point=1)
    further = [{**later[0], **row} for row in against_base(first, later, before, after)]
    ends = {
        row["metric"]: f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]".replace("-", "−") for row in further[:3]
    }
    assert drops([*first, *later, *further]) == [
        f"mmlu −30.0 points; given back by calibration 10.0 {ends['drop_calibration']} (format); "
        f"not given back 20.0 {ends['drop_knowledge']} (knowledge)"
    ]
    without = {key: values for key, values in before.items() if key != "prediction_calibrated"}
    assert not any("low" in row for row in against_base(first, later, without, after))
