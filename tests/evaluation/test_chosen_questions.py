"""Which of an exam's questions are asked: samples, subjects and categories."""

import pytest

from clmed.errors import UserError
from tests.exam_files import load


def test_samples_are_nested_stable_and_in_order(real_data):
    whole = load("mmlu", real_data / "mmlu").questions
    small, large = (load("mmlu", real_data / "mmlu", questions=count).questions for count in (500, 2_000))
    place = {(question.subject, question.index): at for at, question in enumerate(whole)}
    places = [[place[question.subject, question.index] for question in sample] for sample in (small, large)]
    assert [len(sample) for sample in places] == [500, 2_000]
    assert all(sample == sorted(sample) for sample in places)
    assert set(places[0]) < set(places[1])
    # A fair sample: the largest subject has 10.9 % of the questions (standard deviation of the sample's share 0.7 %).
    assert 0.088 < sum(question.subject == "professional_law" for question in large) / 2_000 < 0.131


def test_only_some_subjects_and_categories(real_data):
    every = load("mmlu", real_data / "mmlu").questions
    health = load("mmlu", real_data / "mmlu", only=["health"]).questions
    others = load("mmlu", real_data / "mmlu", without=["health"], shots=1)
    assert health and {q.subject for q in health} == {q.subject for q in every if "health" in q.categories}
    assert len(health) + len(others.questions) == len(every) and "virology" not in others.shots
    both = load("mmlu", real_data / "mmlu", only=["health", "astronomy"], without=["virology"], questions=9**9)
    subjects = {q.subject for q in both.questions}
    assert "astronomy" in subjects and subjects - {"astronomy"} == {q.subject for q in health} - {"virology"}
    with pytest.raises(UserError, match=r"no subject or category 'virolgy'; did you mean 'virology'\?"):
        load("mmlu", real_data / "mmlu", only=["virolgy"])
    with pytest.raises(UserError, match="leave no question"):
        load("mmlu", real_data / "mmlu", only=["virology"], without=["health"])
