"""Format or knowledge? What of a lost accuracy a model still knows, but answers with the wrong letters.

Training can shift how readily a model says "A", whatever is asked, and accuracy falls though nothing is forgotten.
Batch calibration (Zhou et al. 2023, arXiv 2309.17249; after Zhao et al. 2021, arXiv 2102.09690) takes the prior out:
from each log-probability goes the log of that letter's mean probability, which needs no labels and supposes that every
letter is right about equally often. Here that is done until the mean probabilities are even: then a shift of the prior,
however large, changes nothing at all, where one step leaves part of it when a model is sure of itself.

    accuracy_calibrated   accuracy of the calibrated predictions, averaged as the benchmark's authors do
    letter_shift          half the sum over letters of |share among predictions - share among right answers|: 0 to 1
    calibration_error     expected calibration error (Guo et al. 2017): ten bins of the best option's probability among
                          the options; the mean over questions of |accuracy - confidence| of their bin

What it gives back of an accuracy that fell is reckoned in clmed/results/drops.py.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from clmed.results.drops import distance
from clmed.results.metrics import LETTER

BINS, STEPS = 10, 1_000


def calibration_rows(
    answers: Sequence[Sequence[str]], values: Sequence[np.ndarray], gold: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows for results.jsonl of questions with one right letter; `values` are the letters' log-likelihoods.

    The shares of the letters among the predictions are rows of their own, in the categories "letter:A", "letter:B", …
    """
    probabilities = [np.exp(v - np.logaddexp.reduce(v)) for v in values]
    raw = [letters[int(np.argmax(p))] for letters, p in zip(answers, probabilities, strict=True)]
    right = np.array([p == g for p, g in zip(raw, gold, strict=True)], dtype=float)
    found = {
        "letter_shift": distance(shares(raw), shares(gold)),
        "calibration_error": calibration_error(np.array([p.max() for p in probabilities]), right),
    }
    rows = [_row("all", metric, value, len(gold)) for metric, value in found.items()]
    return rows + [_row(f"{LETTER}{x}", "predicted", share, len(gold)) for x, share in sorted(shares(raw).items())]


def calibrated(answers: Sequence[Sequence[str]], values: Sequence[np.ndarray]) -> list[str]:
    """The predictions without the letters' prior."""
    names = sorted({letter for letters in answers for letter in letters})
    places = [[names.index(letter) for letter in letters] for letters in answers]
    scores = np.full((len(values), len(names)), -np.inf)
    for row, (columns, value) in enumerate(zip(places, values, strict=True)):
        scores[row, columns] = value
    options = np.isfinite(scores)
    even = (options / options.sum(axis=1, keepdims=True)).mean(axis=0)
    for _ in range(STEPS):
        probabilities = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        change = np.log(np.maximum(probabilities.mean(axis=0), 1e-300) / even)
        scores -= change
        if np.abs(change).max() < 1e-9:
            break
    return [names[best] for best in scores.argmax(axis=1)]


def shares(letters: Sequence[str]) -> dict[str, float]:
    """How often each occurs."""
    return {letter: count / len(letters) for letter, count in Counter(letters).items()}


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: `confidence` in [0, 1], `right` 0 or 1, by question."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(right))


def _row(category: str, metric: str, score: float, questions: int) -> dict[str, Any]:
    return {"category": category, "metric": metric, "score": score, "questions": questions}
