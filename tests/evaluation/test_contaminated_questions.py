"""Questions that training text holds are scored apart, and no other score changes."""

import csv
from pathlib import Path
from typing import Any

import pytest

from clmed.config import ExperimentConfig
from clmed.data import miniworld
from clmed.data.cleaning import Searched
from clmed.evaluation.aggregate import scores
from clmed.evaluation.benchmarks import load_benchmark
from clmed.evaluation.contamination import Found, asked, contaminated, marked, trained_sources, whole_exams
from clmed.results.table import categories
from clmed.validation import load
from tests.small import small_config


def found_in(config: ExperimentConfig) -> Found:
    return contaminated(config, Searched(asked(whole_exams(config))))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def leaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    """MiniWorld's exam, its training file with the first 30 questions of the validation file as well."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    world = miniworld.folder("miniworld")
    for name in ("mmlu", "general", "medical"):
        (tmp_path / name).symlink_to(world / name)
    train, test = (rows_of(world / "cmexam" / f"synthetic_{part}.csv") for part in ("train", "val"))
    (tmp_path / "cmexam").mkdir()
    (tmp_path / "cmexam/synthetic_val.csv").write_bytes((world / "cmexam/synthetic_val.csv").read_bytes())
    with (tmp_path / "cmexam/synthetic_train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, train[0])
        writer.writeheader()
        writer.writerows([*train, *test[:30]])
    return small_config({"ewc": {"fisher_from": ["english"]}}, data_root=str(tmp_path))


def test_the_planted_questions_are_found_where_they_are_trained_on(leaky: ExperimentConfig) -> None:
    assert trained_sources(leaky) == ["english", "medical", "exam"]
    found = found_in(leaky)
    assert set(found) == {"cmexam"}
    indices = {index for _, index in found["cmexam"]}
    assert indices <= set(range(30))
    # Of the 30, some fall in the exam's fisher and held-out parts, 25 % together, which nothing learns from.
    assert 15 <= len(indices) < 30
    cleaned = {**leaky.data, "exam": leaky.data["exam"].model_copy(update={"decontaminate": True})}
    assert found_in(leaky.model_copy(update={"data": cleaned})) == {}


def test_scores_come_apart_and_stay_what_they_were(leaky: ExperimentConfig) -> None:
    benchmark = load_benchmark(leaky.evaluation.gain[0], Path(leaky.data_root) / "cmexam/synthetic_val.csv")
    predictions = [question.answer if question.index % 3 else "" for question in benchmark.questions]
    before = scores(benchmark, predictions)
    after = scores(marked(benchmark, {"cmexam": {("cmexam", index) for index in range(10)}}), predictions)
    assert [row for row in after if row["category"] not in ("clean", "contaminated")] == before
    apart = {row["category"]: row for row in after}
    assert apart["contaminated"]["questions"] == 10 and apart["contaminated"]["score"] == pytest.approx(0.6)
    assert apart["clean"]["questions"] == len(predictions) - 10
    shown = [{"benchmark": "cmexam", "category": row["category"]} for row in after]
    assert categories(shown, "cmexam") == ["clean", "contaminated"]


def test_a_benchmark_of_which_nothing_was_found_is_left_alone(leaky: ExperimentConfig) -> None:
    benchmark = load_benchmark(leaky.evaluation.gain[0], Path(leaky.data_root) / "cmexam/synthetic_val.csv")
    assert marked(benchmark, {}) is benchmark
    assert marked(benchmark, {"mmlu": {("cmexam", 1)}, "cmexam": {("cmexam", 10**6)}}) is benchmark


def test_all_questions_are_searched_also_those_that_a_sample_does_not_ask(leaky: ExperimentConfig) -> None:
    searched = asked(whole_exams(leaky))
    assert leaky.evaluation.retention[0].questions == 20
    assert sum(question.benchmark == "mmlu" for question in searched) > 100
    several = next(question for question in searched if len(question.right) > 1)
    assert all(0 <= place < len(several.options) for place in several.right)


def test_miniworld_holds_none_of_its_questions() -> None:
    """Its exams ask in wordings that no text has of the same fact: the results of the built-in world stay whole."""
    assert found_in(load("experiments/replay.yaml")) == {}


def test_real_exams_are_found_in_each_other_and_not_in_general_text(
    real_data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """CMExam's parts share case histories; web text and Wikipedia hold none of 26,000 questions."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path))
    found = found_in(load("experiments/real-data.yaml", [f"data_root={real_data}"]))
    assert set(found) == {"cmexam", "cmmlu"}
    assert 10 <= len(found["cmexam"]) <= 30 and 5 <= len(found["cmmlu"]) <= 20
