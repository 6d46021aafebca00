"""From predicted letters to scores, as each benchmark's authors average.

    benchmark  all, and its categories          further
    mmlu       accuracy over the questions      accuracy of every subject, as category "subject:<name>"
    cmmlu      mean of the subjects' accuracy   the same
    cmexam     accuracy of the letter string    F1 of all

CMExam's F1 is the mean of the F1 of every answer string that is right somewhere ("A", "ABD", …), weighted by how often
it is right. An empty prediction is wrong and never left out: leaving it out flatters a model that answers seldom.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypedDict

from clmed.evaluation.benchmarks import Benchmark


class Score(TypedDict):
    """`score` lies in [0, 1]; `questions` is how many it rests on."""

    category: str
    metric: str
    score: float
    questions: int


def scores(benchmark: Benchmark, predictions: Sequence[str]) -> list[Score]:
    """The scores of `predictions` (letters such as "AB", "" for no answer), one a question, in their order.

    First the whole (category "all"), then categories and subjects by name.
    """
    right = [float(p == q.answer) for q, p in zip(benchmark.questions, predictions, strict=True)]
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, question in enumerate(benchmark.questions):
        for category in question.categories:
            groups[category].append(index)
    rows = [_accuracy(benchmark, right, "all", range(len(right)))]
    if benchmark.exam.f1:
        rows.append(Score(category="all", metric="f1", score=_f1(benchmark, predictions), questions=len(right)))
    rows += [_accuracy(benchmark, right, category, groups[category]) for category in sorted(groups)]
    if (subjects := _by_subject(benchmark, range(len(right)))).keys() != {benchmark.exam.name}:
        for subject, members in sorted(subjects.items()):
            rows.append(_accuracy(benchmark, right, f"subject:{subject}", members))
    return rows


def _accuracy(benchmark: Benchmark, right: Sequence[float], category: str, members: Sequence[int]) -> Score:
    """Over the questions `members`; or over their subjects."""
    parts = list(_by_subject(benchmark, members).values()) if benchmark.exam.average == "subjects" else [members]
    means = [sum(right[index] for index in part) / len(part) for part in parts]
    return Score(category=category, metric="accuracy", score=sum(means) / len(means), questions=len(members))


def _by_subject(benchmark: Benchmark, members: Sequence[int]) -> dict[str, list[int]]:
    subjects: defaultdict[str, list[int]] = defaultdict(list)
    for index in members:
        subjects[benchmark.questions[index].subject].append(index)
    return dict(subjects)


def _f1(benchmark: Benchmark, predictions: Sequence[str]) -> float:
    from sklearn.metrics import precision_recall_fscore_support

    truth = [question.answer for question in benchmark.questions]
    return float(
        precision_recall_fscore_support(truth, list(predictions), average="weighted", zero_division=0)[
            2
        ]  # (p, r, f1, _)
    )
