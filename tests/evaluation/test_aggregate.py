"""Scores against hand-made tables, a second implementation, and what chance must give."""

import dataclasses
import random
from collections import Counter

import pytest

from clmed.config import BenchmarkConfig
from clmed.evaluation.aggregate import scores
from clmed.evaluation.benchmarks import EXAMS, Benchmark, Question, load_benchmark
from clmed.evaluation.prompts import prompt

LETTERS = dict.fromkeys("ABCDE", "x")


def benchmark(kind, *questions: tuple[str, str, tuple[str, ...]]) -> Benchmark:
    """From (subject, answer, categories)."""
    made = [
        Question(subject=subject, index=index, stem="?", options=LETTERS, answer=answer, categories=categories)
        for index, (subject, answer, categories) in enumerate(questions)
    ]
    return Benchmark(name=kind, exam=EXAMS[kind], questions=tuple(made), shots={}, scoring="letter")


def table(exam: Benchmark, predictions) -> dict[tuple[str, str], tuple[float, int]]:
    return {(row["category"], row["metric"]): (row["score"], row["questions"]) for row in scores(exam, predictions)}


# Subject a: 3 of 4 right; b: 0 of 1; c: 1 of 2.
SUBJECTS = [
    *[("a", "A", ("STEM", "health"))] * 4,
    ("b", "B", ("STEM", "non-health")),
    *[("c", "C", ("other", "non-health"))] * 2,
]
PREDICTED = ["A", "A", "A", "B", "", "C", "D"]


def test_mmlu_averages_questions():
    assert table(benchmark("mmlu", *SUBJECTS), PREDICTED) == {
        ("all", "accuracy"): (4 / 7, 7),
        ("STEM", "accuracy"): (3 / 5, 5),
        ("health", "accuracy"): (3 / 4, 4),
        ("non-health", "accuracy"): (1 / 3, 3),
        ("other", "accuracy"): (1 / 2, 2),
        ("subject:a", "accuracy"): (3 / 4, 4),
        ("subject:b", "accuracy"): (0.0, 1),
        ("subject:c", "accuracy"): (1 / 2, 2),
    }


def test_cmmlu_averages_subjects():
    assert table(benchmark("cmmlu", *SUBJECTS), PREDICTED) == {
        ("all", "accuracy"): (pytest.approx((3 / 4 + 0 + 1 / 2) / 3), 7),
        ("STEM", "accuracy"): (pytest.approx((3 / 4 + 0) / 2), 5),
        ("health", "accuracy"): (3 / 4, 4),
        ("non-health", "accuracy"): (pytest.approx((0 + 1 / 2) / 2), 3),
        ("other", "accuracy"): (1 / 2, 2),
        ("subject:a", "accuracy"): (3 / 4, 4),
        ("subject:b", "accuracy"): (0.0, 1),
        ("subject:c", "accuracy"): (1 / 2, 2),
    }


def test_the_whole_comes_first():
    assert [row["category"] for row in scores(benchmark("mmlu", *SUBJECTS), PREDICTED)][:2] == ["all", "STEM"]
    with pytest.raises(ValueError, match="shorter"):
        scores(benchmark("mmlu", *SUBJECTS), PREDICTED[:-1])


def exam(*answers: str) -> Benchmark:
    return benchmark("cmexam", *[("cmexam", each, ("single" if len(each) == 1 else "multiple",)) for each in answers])


def test_cmexam_by_hand():
    """
    answer  support  predicted  both   precision  recall  F1
    A          3         2        2       1        2/3    4/5
    B          1         2        1      1/2        1     2/3
    AB         2         1        1       1        1/2    2/3
    ""         0         1        0       not an answer: no weight
    weighted: (3 * 4/5 + 1 * 2/3 + 2 * 2/3) / 6 = 4.4 / 6; macro: (4/5 + 2/3 + 2/3) / 3 = 6.4 / 9
    letters: 8 right ones, 6 predicted ones (2 As, 2 Bs, AB), 5 in common (A, A, B, A and B): 2 * 5 / 14
    """
    assert table(exam("A", "A", "A", "B", "AB", "AB"), ["A", "A", "B", "B", "AB", ""]) == {
        ("all", "accuracy"): (4 / 6, 6),
        ("all", "f1"): (pytest.approx(4.4 / 6), 6),
        ("all", "f1_macro"): (pytest.approx(6.4 / 9), 6),
        ("all", "f1_letters"): (pytest.approx(10 / 14), 6),
        ("multiple", "accuracy"): (1 / 2, 2),
        ("single", "accuracy"): (3 / 4, 4),
    }


def test_empty_predictions_are_wrong():
    assert table(exam("A", "B"), ["", ""])["all", "accuracy"] == (0.0, 2)
    assert table(exam("A", "B"), ["", ""])["all", "f1"] == (0.0, 2)
    assert table(exam("A", "A"), ["A", ""])["all", "f1"] == (pytest.approx(2 / 3), 2)


def f1_by_definition(truth: list[str], predicted: list[str]) -> dict[str, float]:
    """The definitions, once more: of answer strings, and of single letters."""
    support, guesses = Counter(truth), Counter(predicted)
    hits = Counter(t for t, p in zip(truth, predicted, strict=True) if t == p)
    each = {answer: 2 * hits[answer] / (n + guesses[answer]) for answer, n in support.items()}
    common = sum(len(set(t) & set(p)) for t, p in zip(truth, predicted, strict=True))
    return {
        "f1": sum(n * each[answer] for answer, n in support.items()) / len(truth),
        "f1_macro": sum(each.values()) / len(each),
        "f1_letters": 2 * common / sum(map(len, [*truth, *predicted])),
    }


@pytest.mark.parametrize("seed", range(5))
def test_f1_against_the_definition_and_the_published_rule(seed):
    from sklearn.metrics import precision_recall_fscore_support

    rng = random.Random(seed)
    sets = ["A", "B", "C", "AB", "AC", "ABC"]
    truth = rng.choices(sets, k=60)
    predicted = [t if rng.random() < 0.4 else rng.choice([*sets, "", "D"]) for t in truth]
    rows = table(exam(*truth), predicted)
    for metric, value in f1_by_definition(truth, predicted).items():
        assert rows["all", metric][0] == pytest.approx(value)
    published = precision_recall_fscore_support(truth, predicted, average="weighted", zero_division=0)[2]
    assert rows["all", "f1"][0] == pytest.approx(published)


def test_baselines_stand_beside_every_score():
    """A is right most often, and so always said; b and c have other majorities."""
    rows = {row["category"]: row for row in scores(benchmark("mmlu", *SUBJECTS), PREDICTED)}
    assert (rows["all"]["constant"], rows["all"]["majority"]) == (4 / 7, 1)
    assert (rows["subject:b"]["constant"], rows["subject:b"]["majority"]) == (0, 1)
    exams = {row["metric"]: row for row in reversed(scores(exam("AB", "AB", "AB", "A", "A", "C"), [""] * 6))}
    assert exams["accuracy"]["constant"] == 2 / 6 and exams["accuracy"]["majority"] == 3 / 6
    assert exams["f1"]["constant"] == pytest.approx(f1_by_definition(["AB"] * 3 + ["A", "A", "C"], ["A"] * 6)["f1"])
    tie = scores(benchmark("mmlu", ("a", "C", ()), ("a", "B", ())), ["", ""])
    assert tie[0]["constant"] == tie[0]["majority"] == 0.5


def test_baselines_of_a_sample_are_those_of_all_questions():
    whole = benchmark("mmlu", *[("a", "A", ())] * 3, *[("a", "B", ())] * 2, *[("b", "C", ())] * 2, ("b", "B", ()))
    sample = dataclasses.replace(whole, questions=whole.questions[3:6], population=whole.questions)
    row = scores(sample, ["", "", ""])[0]
    assert (row["questions"], row["constant"], row["majority"]) == (3, 0, 1 / 3)


def test_skipped_rows_are_counted_in_every_row():
    partial = dataclasses.replace(exam("A", "B"), reasons=("test.csv, line 3: no known answer",))
    assert {row["skipped"] for row in scores(partial, ["A", "A"])} == {1}


def test_constant_answers(real_data):
    """A model that always says B: a fifth right, and an F1 of about 7 %."""
    real = load_benchmark(BenchmarkConfig(benchmark="cmexam"), real_data / "cmexam" / "test.csv")
    rows = table(real, ["B"] * len(real.questions))
    share = 210 / 1000
    assert rows["all", "accuracy"] == (share, 1000)
    assert rows["all", "f1"] == (pytest.approx(share * 2 * share / (1 + share)), 1000)
    assert rows["multiple", "accuracy"] == (0.0, 31)
    for row in scores(real, [""] * 1000):
        if row["category"] == "all" and row["metric"] != "f1_letters":
            assert row["constant"] == row["majority"] == rows["all", row["metric"]][0]


@pytest.mark.parametrize("kind", ["mmlu", "cmmlu", "cmexam"])
def test_guesses_give_chance(real_data, kind):
    """Guesses among the prompt's answers: a quarter, or one in 31 sets of five options (15 of four)."""
    path = real_data / kind / ("test.csv" if kind == "cmexam" else "")
    real = load_benchmark(BenchmarkConfig(benchmark=kind), path)
    answers = [prompt(real, question, 0).answers for question in real.questions]
    rng = random.Random(0)
    draws = 20 if kind == "cmexam" else 1
    got = sum(table(real, [rng.choice(each) for each in answers])["all", "accuracy"][0] for _ in range(draws)) / draws
    chances = [1 / len(each) for each in answers]
    expected = sum(chances) / len(chances)
    assert expected == pytest.approx(0.25 if kind != "cmexam" else (977 / 31 + 23 / 15) / 1000)
    deviation = (sum(chance * (1 - chance) for chance in chances) / draws) ** 0.5 / len(chances)
    # The mean over subjects of unequal sizes is a little wider than that over questions.
    assert abs(got - expected) < 4 * deviation * (1.3 if kind == "cmmlu" else 1)


def test_all_right_is_one(real_data):
    for kind, path in (("mmlu", "mmlu"), ("cmmlu", "cmmlu"), ("cmexam", "cmexam/val.csv")):
        real = load_benchmark(BenchmarkConfig(benchmark=kind), real_data / path)
        rows = scores(real, [question.answer for question in real.questions])
        assert all(row["score"] == pytest.approx(1) for row in rows)
        subjects = [row["questions"] for row in rows if row["category"].startswith("subject:")]
        assert sum(subjects) == (0 if kind == "cmexam" else len(real.questions))
