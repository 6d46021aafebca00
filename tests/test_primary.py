"""`evaluation.primary`: the benchmarks that statements rest on."""

import pytest

from clmed.config.evaluation import EvaluationConfig

SECTION = {"gain": [{"benchmark": "cmexam"}], "retention": [{"benchmark": "mmlu", "name": "general"}]}


def test_primary_benchmarks_go_by_their_names_and_may_be_one():
    assert EvaluationConfig.model_validate(SECTION).primary == []
    read = EvaluationConfig.model_validate({**SECTION, "primary": "general"})
    assert read.primary == ["general"]
    assert EvaluationConfig.model_validate(read.model_dump(mode="json")) == read


def test_an_unknown_benchmark_is_told_with_the_nearest_name():
    with pytest.raises(ValueError, match="primary: there is no benchmark 'generl' here; did you mean 'general'"):
        EvaluationConfig.model_validate({**SECTION, "primary": ["cmexam", "generl"]})
