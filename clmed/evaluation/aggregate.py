"""From predicted letters to scores, as each benchmark's authors average, with what could be had without reading.

Accuracy is that of the letter string, over the questions or over the subjects' means (`Exam.average`): of all, of each
category, and of each subject, as category "subject:<name>". An empty prediction is wrong and never left out: leaving it
out flatters a model that answers seldom. Where the exam asks for it, F1 of all:

    f1          the mean of the F1 of every answer string that is right somewhere ("A", "ABD", …), weighted by how often
                it is right: CMExam's published rule, scikit-learn's average="weighted"
    f1_macro    the same mean without weights
    f1_letters  of single letters: each letter of each question is one decision (average="micro")

Beside every score stand two baselines: `constant`, the one letter that is right most often, given to every question;
and `majority`, to every question the answer that is right most often in its subject. Where only a sample is asked,
all questions say which these are: a few questions of a subject have a majority by chance.
"""

import string
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypedDict

from clmed.evaluation.benchmarks import Benchmark, Question
from clmed.evaluation.benchmarks.exam import F1

Key = tuple[str, str]  # category, metric
AVERAGES: Mapping[F1, str] = {"f1": "weighted", "f1_macro": "macro", "f1_letters": "micro"}  # in scikit-learn's words


class Score(TypedDict):
    """`score` and its baselines lie in [0, 1]; `questions` is how many it rests on; `skipped`: rows of the whole
    benchmark that have no known answer."""

    category: str
    metric: str
    score: float
    questions: int
    constant: float
    majority: float
    skipped: int


def scores(benchmark: Benchmark, predictions: Sequence[str]) -> list[Score]:
    """The scores of `predictions` (letters such as "AB", "" for no answer), one a question, in their order.

    First the whole (category "all"), then categories and subjects by name.
    """
    found, constant, majority = (
        _values(benchmark, letters) for letters in (predictions, _constant(benchmark), _majority(benchmark))
    )
    return [
        Score(
            category=category,
            metric=metric,
            score=score,
            questions=questions,
            constant=constant[category, metric][0],
            majority=majority[category, metric][0],
            skipped=benchmark.skipped,
        )
        for (category, metric), (score, questions) in found.items()
    ]


def _constant(benchmark: Benchmark) -> list[str]:
    """The letter that is the whole right answer most often (the first of equals), for every question."""
    counts = Counter(question.answer for question in _all(benchmark) if len(question.answer) == 1)
    letter = min(counts, key=lambda letter: (-counts[letter], letter), default="A")
    return [letter] * len(benchmark.questions)


def _majority(benchmark: Benchmark) -> list[str]:
    """The answer that is right most often in the question's subject (the first of equals)."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in _all(benchmark):
        counts[question.subject][question.answer] += 1
    best = {subject: min(found, key=lambda answer: (-found[answer], answer)) for subject, found in counts.items()}
    return [best[question.subject] for question in benchmark.questions]


def _all(benchmark: Benchmark) -> Sequence[Question]:
    return benchmark.population or benchmark.questions


def _values(benchmark: Benchmark, predictions: Sequence[str]) -> dict[Key, tuple[float, int]]:
    """Each score with the number of questions that it rests on."""
    right = [float(p == q.answer) for q, p in zip(benchmark.questions, predictions, strict=True)]
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, question in enumerate(benchmark.questions):
        for category in question.categories:
            groups[category].append(index)
    every = range(len(right))
    values: dict[Key, tuple[float, int]] = {("all", "accuracy"): _accuracy(benchmark, right, every)}
    for metric, value in _f1(benchmark, predictions).items():
        values["all", metric] = value, len(right)
    values |= {(name, "accuracy"): _accuracy(benchmark, right, groups[name]) for name in sorted(groups)}
    if (subjects := _by_subject(benchmark, every)).keys() != {benchmark.exam.name}:
        for subject, members in sorted(subjects.items()):
            values[f"subject:{subject}", "accuracy"] = _accuracy(benchmark, right, members)
    return values


def accuracy(benchmark: Benchmark, predictions: Sequence[str]) -> float:
    """Of all questions, averaged as the benchmark's authors do."""
    right = [float(p == q.answer) for q, p in zip(benchmark.questions, predictions, strict=True)]
    return _accuracy(benchmark, right, range(len(right)))[0]


def _accuracy(benchmark: Benchmark, right: Sequence[float], members: Sequence[int]) -> tuple[float, int]:
    """Over the questions `members`, or over their subjects."""
    parts = list(_by_subject(benchmark, members).values()) if benchmark.exam.average == "subjects" else [members]
    means = [sum(right[index] for index in part) / len(part) for part in parts]
    return sum(means) / len(means), len(members)


def _by_subject(benchmark: Benchmark, members: Sequence[int]) -> dict[str, list[int]]:
    subjects: defaultdict[str, list[int]] = defaultdict(list)
    for index in members:
        subjects[benchmark.questions[index].subject].append(index)
    return dict(subjects)


def _f1(benchmark: Benchmark, predictions: Sequence[str]) -> dict[str, float]:
    """Those that the exam asks for. No class stands for an empty prediction: it is a miss of the right one."""
    if not benchmark.exam.f1:
        return {}
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    truth, predicted = [question.answer for question in benchmark.questions], list(predictions)
    found: dict[str, float] = {}
    for metric in benchmark.exam.f1:
        settings = {"average": AVERAGES[metric], "zero_division": 0}
        if metric == "f1_letters":
            letters = MultiLabelBinarizer(classes=list(string.ascii_uppercase))
            found[metric] = float(f1_score(letters.fit_transform(truth), letters.transform(predicted), **settings))
        else:
            found[metric] = float(f1_score(truth, predicted, labels=sorted(set(truth)), **settings))
    return found
