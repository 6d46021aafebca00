"""Draws against closed forms, and the coverage of the intervals by simulation."""

from dataclasses import replace

import numpy as np
import pytest

from clmed.evaluation.floors import paired_texts
from clmed.results.statistics.bootstrap import (
    generator,
    interval,
    p_above,
    p_two_sided,
    question_draws,
    ratio_draws,
    seed_draws,
)
from clmed.results.statistics.uncertain import Uncertain, mean_of


def test_the_variance_of_a_mean_is_unbiased_and_that_of_strata_the_sum_of_theirs():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2))
    drawn = question_draws(values, rng=generator(0), answers=0, draws=40_000)
    assert drawn.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.005)
    assert drawn.var(axis=0) == pytest.approx(values.var(axis=0, ddof=1) / 60, rel=0.03)

    strata = np.repeat(list("abcdef"), 10)
    by = values.reshape(6, 10, 2)
    drawn = question_draws(values, strata, rng=generator(0), answers=0, draws=40_000)
    assert drawn.var(axis=0) == pytest.approx((by.var(axis=1, ddof=1) / 10).sum(axis=0) / 36, rel=0.03)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(
        sum(np.cov(part.T)[0, 1] for part in by)
        / np.sqrt(np.prod([by.var(axis=1, ddof=1)[:, i].sum() for i in (0, 1)])),
        abs=0.02,
    )


def test_questions_of_many_kinds_are_drawn_in_the_same_way():
    """Beyond a number of kinds the draws are made one question at a time: coins and all."""
    kinds = np.random.default_rng(0).choice([-1.0, 0, 1], p=[0.3, 0.5, 0.2], size=(90, 2))
    few = question_draws(kinds, rng=generator(0), draws=20_000)
    many = question_draws(kinds + 1e-9 * np.arange(90)[:, None], rng=generator(1), draws=20_000)
    assert many.mean(axis=0) == pytest.approx(few.mean(axis=0), abs=0.002)
    assert np.cov(many.T) == pytest.approx(np.cov(few.T), rel=0.05, abs=1e-4)


def test_unequal_strata_weigh_alike_and_those_of_one_question_stand_for_each_other():
    values = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 0, 4, 2])[:, None]
    strata = np.array(["a"] * 8 + ["b", "c", "d"])
    drawn = question_draws(values, strata, rng=generator(0), answers=0, draws=40_000)[:, 0]
    assert drawn.mean() == pytest.approx((1 + 0 + 4 + 2) / 4, abs=0.01)
    assert drawn.var() == pytest.approx((3 / 4) ** 2 * np.var([0, 4, 2], ddof=1) / 3, rel=0.03)


def test_draws_are_the_same_every_time():
    values = np.random.default_rng(0).choice([-1.0, 0, 1], size=(50, 1))
    one, two = (question_draws(values, rng=generator(3, "mmlu"), draws=100) for _ in range(2))
    other = question_draws(values, rng=generator(3, "cmmlu"), draws=100)
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_the_interval_of_perplexity_agrees_with_the_formula_for_a_ratio():
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 128, size=400).astype(float)
    before = rng.normal(2.0, 0.3, size=400) * tokens
    now = before + rng.normal(0.1, 0.1, size=400) * tokens
    drawn = ratio_draws((now - before)[:, None], tokens, rng=generator(0))[:, 0]
    value, below = paired_texts({"nats": before, "tokens": tokens}, {"nats": now, "tokens": tokens})
    found = interval(float((now - before).sum() / tokens.sum()), drawn)
    assert 100 * np.expm1(found.value) == pytest.approx(value)
    assert 100 * np.expm1(found.low) == pytest.approx(value - below, rel=0.02)


@pytest.mark.parametrize("rows", [2, 3, 6, 15])
def test_an_interval_over_few_rows_of_text_holds_the_truth_in_95_of_100_samples(rows):
    rng = np.random.default_rng(5)
    held = 0
    for number in range(400):
        tokens = rng.integers(400, 512, size=rows).astype(float)
        drawn = ratio_draws((rng.normal(0.1, 0.2, rows) * tokens)[:, None], tokens, rng=generator(number), draws=600)
        held += np.quantile(drawn, 0.025) <= 0.1 <= np.quantile(drawn, 0.975)
    assert held / 400 >= 0.925


def test_one_row_of_text_has_no_interval():
    drawn = ratio_draws(np.array([[40.0]]), np.array([100.0]), rng=generator(0))[:, 0]
    assert not interval(0.4, drawn).known


def test_few_rows_of_text_have_no_p_values_beyond_their_draws():
    rows, tokens = np.array([40.0, 42, 41, 43])[:, None], np.full(4, 100.0)
    drawn = ratio_draws(rows, tokens, rng=generator(0), draws=1000)[:, 0]
    found = Uncertain(value=0.415, questions=drawn, seeds=(0.415,), normal=False)
    assert found.p_above(0.0) > 1 / 1002 > replace(found, normal=True).p_above(0.0)
    assert mean_of([found, found]).p_above(0.0) > 1 / 1002


# questions, share that differ, true difference, subjects
SAMPLES = [
    (300, 0.01, -0.01, 0),
    (168, 0.012, -0.012, 0),
    (300, 0.2, -0.1, 0),
    (100, 0.1, 0.0, 0),
    (500, 0.01, -0.005, 0),
    (60, 0.3, -0.2, 0),
    (240, 0.2, -0.1, 20),
]


@pytest.mark.parametrize(("questions", "differ", "truth", "subjects"), SAMPLES)
def test_an_interval_over_questions_holds_the_truth_in_95_of_100_samples(questions, differ, truth, subjects):
    samples = np.random.default_rng(5).choice(
        [1.0, -1.0, 0.0], size=(300, questions), p=[(differ + truth) / 2, (differ - truth) / 2, 1 - differ]
    )
    strata = np.repeat(np.arange(subjects), questions // subjects) if subjects else None
    held = 0
    for number, values in enumerate(samples):
        drawn = question_draws(values[:, None], strata, rng=generator(number), draws=600)[:, 0]
        found = interval(values.mean(), drawn)
        held += found.low <= truth <= found.high
    assert held / 300 >= 0.925


def test_a_few_questions_that_weigh_as_much_as_many_make_an_interval_wide():
    """One subject of 180 questions, four of 5: the few are three quarters of the mean, and may differ by luck alone."""
    strata = np.repeat(np.arange(5), [180, 5, 5, 5, 5])
    held = 0
    for number, values in enumerate(np.random.default_rng(5).choice([1.0, -1, 0], (300, 200), p=[0.02, 0.06, 0.92])):
        drawn = question_draws(values[:, None], strata, rng=generator(number), draws=600)[:, 0]
        found = interval(float(np.mean([values[strata == name].mean() for name in range(5)])), drawn)
        held += found.low <= -0.04 <= found.high
    assert held / 300 >= 0.925


def test_no_difference_among_few_questions_is_no_certainty():
    drawn = question_draws(np.zeros((50, 1)), rng=generator(0))[:, 0]
    found = interval(0.0, drawn)
    assert found.low < -0.01 and found.high > 0.01
    many = interval(0.0, question_draws(np.zeros((5000, 1)), rng=generator(0))[:, 0])
    assert -0.001 < many.low <= many.high < 0.001


def test_an_interval_over_seeds_holds_the_truth_where_resampled_seeds_do_not():
    rng = np.random.default_rng(1)
    ours, resampled = 0, 0
    for number in range(500):
        values = rng.normal(0.1, 0.05, size=5)
        found = interval(values.mean(), values.mean() + seed_draws(values, rng=generator(number), draws=2000))
        ours += found.low <= 0.1 <= found.high
        means = rng.choice(values, size=(1000, 5)).mean(axis=1)
        resampled += np.quantile(means, 0.025) <= 0.1 <= np.quantile(means, 0.975)
    assert 0.925 <= ours / 500 <= 0.98
    assert resampled / 500 < 0.88


def test_an_interval_over_both_holds_the_truth_of_other_seeds_and_other_questions():
    """A question's difference has a part of its own, one of the run, and one of both."""
    rng = np.random.default_rng(2)
    held, of_questions = 0, 0
    for number in range(300):
        shares = 0.2 + rng.normal(0, 0.05, size=3)[:, None] + rng.normal(0, 0.1, size=200)[None, :]
        lost = -(rng.random((3, 200)) < np.clip(shares, 0, 1)).astype(float)
        drawn = question_draws(lost.mean(axis=0)[:, None], rng=generator(number), draws=1000, answers=3)[:, 0]
        both = Uncertain(value=lost.mean(), questions=drawn, seeds=tuple(lost.mean(axis=1))).estimate()
        held += both.low <= -0.2035 <= both.high  # the mean of the shares, as far as they lie in [0, 1]
        alone = interval(lost.mean(), drawn)
        of_questions += alone.low <= -0.2035 <= alone.high
    assert held / 300 >= 0.925
    assert of_questions / 300 < 0.85  # one strategy's seeds count


def test_p_values_and_intervals_say_the_same():
    values = np.random.default_rng(0).choice([-1.0, 0, 1], p=[0.1, 0.86, 0.04], size=(400, 1))
    drawn = question_draws(values, rng=generator(0))[:, 0]
    found = interval(values.mean(), drawn)
    assert (p_two_sided(drawn) < 0.05) == found.excludes(0)
    assert p_above(drawn, found.low) == pytest.approx(0.025, abs=0.012)
    assert p_two_sided(drawn, float(values.mean())) > 0.8


def test_beyond_all_draws_the_formula_tells_how_small_a_p_value_is():
    drawn = generator(0).normal(-0.2, 0.02, size=4000)
    found = Uncertain(value=-0.2, questions=drawn, seeds=(-0.2,))
    assert found.p_two_sided() < 1e-15 and found.p_above(-0.19) == pytest.approx(0.69, abs=0.02)
    seeds = Uncertain(value=-0.2, questions=drawn, seeds=(-0.19, -0.2, -0.21))
    assert 1e-12 < seeds.p_two_sided() < 0.01  # three seeds are less sure


def test_without_answers_the_formulas_of_normal_and_student_are_used():
    alone = Uncertain(value=-0.1, questions=0.02**2, seeds=(-0.1,)).estimate()
    assert alone.low == pytest.approx(-0.1 - 1.959964 * 0.02) and alone.high == pytest.approx(-0.1 + 1.959964 * 0.02)
    seeds = (-0.12, -0.1, -0.08)
    only = Uncertain(value=-0.1, questions=0.0, seeds=seeds).estimate()
    assert only.high == pytest.approx(-0.1 + 4.302653 * 0.02 / np.sqrt(3))
    for unknown in (
        Uncertain(value=-0.1, questions=float("nan"), seeds=seeds),
        -Uncertain(value=0.1, questions=np.nan, seeds=seeds),
    ):
        assert not unknown.estimate().known and unknown.p_two_sided() == 1, "seeds do not tell of other questions"
    assert not Uncertain(value=1.0, questions=float("nan"), seeds=(1.0,)).estimate().known


def test_draws_and_formulas_agree_where_both_are_known():
    values = np.random.default_rng(0).choice([-1.0, 0, 1], p=[0.2, 0.7, 0.1], size=(500, 1))
    drawn = question_draws(values, rng=generator(0))[:, 0]
    by_draws = Uncertain(value=values.mean(), questions=drawn, seeds=(values.mean(),))
    by_formula = Uncertain(value=values.mean(), questions=float(values.var(ddof=1)) / 500, seeds=(values.mean(),))
    for one, two in (
        (by_draws, by_formula),
        (-by_draws, -by_formula),
        (mean_of([by_draws, -by_draws]), mean_of([by_draws, -by_formula])),
    ):
        first, second = one.estimate(), two.estimate()
        if one is by_draws or two == -by_formula:
            assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=0.004)
        assert first.value == pytest.approx(second.value)
    assert by_draws.p_above(-0.15) == pytest.approx(by_formula.p_above(-0.15), abs=0.01)
