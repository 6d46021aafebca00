"""The split of a drop as a run writes it: from the measurements of two models to what is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clmed.config import EvaluationConfig
from clmed.evaluation.evaluator import make_benchmarks, write_measurement
from clmed.results.drops import drops
from clmed.results.rundir import RunDirectory
from tests.exam_files import table

HEADER = ["", "Question", "A", "B", "C", "D", "Answer"]
SIZES = {"anatomy": 12, "virology": 30}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for subject, size in SIZES.items():
        for part, count in (("dev", 2), ("test", size)):
            rows = [[n, f"{subject}{n}是？", "甲", "乙", "丙", "丁", "ABCD"[n * n % 4]] for n in range(count)]
            table(tmp_path / "cmmlu" / part / f"{subject}.csv", HEADER, *rows)
    return tmp_path


def test_intervals_are_written_and_told(folder: Path, make_model: Any, tokenizer: Any) -> None:
    asked = {"benchmark": "cmmlu", "path": str(folder / "cmmlu"), "shots": 2, "format_check": True}
    evaluation = EvaluationConfig.model_validate({"retention": [asked]})
    (cmmlu,) = make_benchmarks(evaluation, path_of=Path, corpus=None, tokenizer=tokenizer, positions=512)
    run = RunDirectory.create(folder / "run", "name: x\n", {})
    for point in (0, 1):
        place = {"point": point, "tokens": point, "experience": "one"}
        model = make_model(seed=point, initializer_range=0.4)
        write_measurement(run, cmmlu, cmmlu.measure(model), 2, place)
    rows = {row["metric"]: row for row in run.results() if row["point"] == 1 and row["category"] == "all"}
    before, after = (run.answers(point, "cmmlu") for point in (0, 1))
    subjects, gold = np.array(after["subject"]), np.array(after["gold"])

    def loss(way: str) -> float:
        lost = (np.array(before[f"prediction{way}"]) == gold) - (np.array(after[f"prediction{way}"]) == gold) * 1.0
        return float(np.mean([lost[subjects == subject].mean() for subject in SIZES]))

    expected = {
        "drop_shots": loss("_0_shot") - loss(""),
        "drop_calibration": loss("_0_shot") - loss("_0_shot_calibrated"),
        "drop_format": loss("_0_shot") - loss("_calibrated"),
        "drop_knowledge": loss("_calibrated"),
        "drop_text": loss("_text"),
    }
    for metric, value in expected.items():
        row = rows[metric]
        assert row["score"] == pytest.approx(value)
        assert row["low"] < row["score"] < row["high"] and row["high"] - row["low"] < 1.5
    assert "low" not in rows["letter_shift_from_base"]
    worse = [
        row | {"score": 2.0} if row["point"] == 0 and row["metric"] == "accuracy_0_shot" else row
        for row in run.results()
    ]
    value, low, high = (100 * rows["drop_knowledge"][key] for key in ("score", "low", "high"))
    assert f"not given back {value:.1f} [{low:.1f}, {high:.1f}] (knowledge)".replace("-", "−") in drops(worse)[0]
