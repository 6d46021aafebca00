"""Tasks of lm-evaluation-harness in a configuration, whether it is installed or not."""

from typing import Any

import pytest
from pydantic import ValidationError

from clmed.config import BenchmarkConfig, EvaluationConfig
from clmed.errors import UserError
from clmed.evaluation.harness import tasks


def config(**settings: Any) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate({"benchmark": "lm_eval/hellaswag", **settings})


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"lm_eval/hellaswag needs lm-evaluation-harness: pip install 'clmed\[lm_eval\]'"
    ):
        tasks.find_task(config(), None)


def test_shots_that_are_not_given_are_the_task_s_own() -> None:
    assert config().task == "hellaswag" and not config().is_exam
    assert (config().given_shots, config(shots=0).given_shots, config(shots=3).given_shots) == (None, 0, 3)
    for settings in (config(), config(shots=0), config(shots=3), BenchmarkConfig(benchmark="mmlu")):
        again = BenchmarkConfig.model_validate(settings.model_dump(mode="json"))
        assert again == settings and again.given_shots == settings.given_shots
    assert BenchmarkConfig(benchmark="mmlu").model_dump()["shots"] == 0


@pytest.mark.parametrize("setting", [{"scoring": "text"}, {"split": "test"}, {"shots_from": "a.csv"}, {"only": ["a"]}])
def test_what_is_for_exams_only(setting: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="is not for tasks of lm_eval"):
        config(**setting)


def test_floors_of_tasks_go_either_way() -> None:
    for floor in (-2.0, "+5%"):
        made = EvaluationConfig.model_validate({"retention": [config()], "floors": {"lm_eval/hellaswag": floor}})
        assert made.floors
