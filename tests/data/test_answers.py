"""Answers of a training and a test exam compared, against scipy's own test and by hand."""

from pathlib import Path

import pytest
from scipy.stats import chi2_contingency

from clmed.config import SourceConfig
from clmed.data.answers import LETTERS, SEVERAL, answers, differences


def spread(**counts: int) -> list[str]:
    return [letter for letter, count in counts.items() for _ in range(count)]


def test_equal_distributions_do_not_differ_and_unequal_ones_do() -> None:
    train, test = spread(A=500, B=500, C=500, AB=50), spread(A=100, B=100, C=100, AB=10)
    assert not any(found.matters for found in differences(train, test))
    shifted = spread(A=150, B=75, C=75, AB=10)
    letters, several = differences(train, shifted)
    assert (letters.what, several.what) == (LETTERS, SEVERAL)
    assert letters.matters and not several.matters
    assert letters.p == pytest.approx(chi2_contingency([[500, 500, 500], [150, 75, 75]]).pvalue)
    assert letters.largest == pytest.approx(1 / 6)
    letters, several = differences(train, spread(A=100, B=100, C=100, AB=90))
    assert several.matters and not letters.matters


def test_small_differences_and_small_files_are_no_reason_to_warn() -> None:
    (large,) = differences(spread(A=50_000, B=50_000), spread(A=51_000, B=49_000))
    assert large.p < 0.01 and not large.matters  # a single point, in files in which it cannot be chance
    (small,) = differences(spread(A=3, B=1), spread(A=1, B=3))
    assert not small.matters


def test_rare_letters_are_put_together() -> None:
    """E is expected twice in the test: its cell alone would make the statistic a wild one."""
    train, test = spread(A=500, B=490, D=5, E=5), spread(A=50, B=49, D=1)
    (found,) = differences(train, test)
    assert set(found.train) == {"A", "B", "D", "E"} and found.test["E"] == 0
    assert found.p == pytest.approx(chi2_contingency([[500, 490, 10], [50, 49, 1]], correction=False).pvalue)


def test_nothing_to_compare() -> None:
    assert list(differences([], ["A"])) == [] and list(differences(["A"], ["A"])) == []


def test_answers_are_read_as_training_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "exam.csv"
    path.write_text('Question,Options,Answer\nq,"A x\nB y","Ｂ,a"\nq,"A x\nB y",nan\n,A x,A\nq,"B x\nC y",C\n')
    assert answers(SourceConfig(path="exam.csv", format="exam"), path) == ["AB", "C"]
