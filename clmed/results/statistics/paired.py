"""Two runs (or a run and its base) on the same questions: McNemar's test and the difference with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clmed.results.statistics.bootstrap import DRAWS, generator, interval, p_two_sided, question_draws
from clmed.results.statistics.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Of the questions that one answers rightly and the other wrongly.

    lost: right before, wrong now; won: wrong before, right now; the p-values are two-sided. exact: McNemar 1947 by the
    binomial distribution; mid_p: the same with half of the probability of what was seen, less conservative (Fagerland,
    Lydersen & Laake 2013, BMC Medical Research Methodology 13:91); chi2: (lost - won)^2 / (lost + won), 1 degree.
    """

    lost: int
    won: int
    exact: float
    mid_p: float
    chi2: float


def mcnemar(lost: int, won: int) -> McNemar:
    """The test for these two counts; all p-values are 1 if there is no such question."""
    discordant = lost + won
    if not discordant:
        return McNemar(lost=0, won=0, exact=1.0, mid_p=1.0, chi2=1.0)
    tail = 2 * math.fsum(_binomial(few, discordant) for few in range(min(lost, won) + 1))
    point = _binomial(lost, discordant)
    exact = min(1.0, tail)
    # For equal counts both tails hold the middle: the mid-p is 1 minus half of it.
    mid_p = 1 - point / 2 if lost == won else tail - point
    statistic = (lost - won) ** 2 / discordant
    return McNemar(lost=lost, won=won, exact=exact, mid_p=mid_p, chi2=math.erfc(math.sqrt(statistic / 2)))


def _binomial(heads: int, tosses: int) -> float:
    """The probability of so many heads. (scipy's takes as long to import as all else here to compute.)"""
    ways = math.lgamma(tosses + 1) - math.lgamma(heads + 1) - math.lgamma(tosses - heads + 1)
    return math.exp(ways - tosses * math.log(2))


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The difference now - before on the same questions; p: two-sided, by the bootstrap."""

    questions: int
    difference: Estimate
    p: float
    test: McNemar


def paired(
    before: Sequence[bool] | NDArray[np.generic],
    now: Sequence[bool] | NDArray[np.generic],
    strata: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Paired:
    """Compare right-or-wrong answers to the same questions, in the same order.

    strata: the subject of each question, where the score is the mean over subjects; they are resampled within subjects.
    """
    right_before, right_now = np.asarray(before, dtype=float), np.asarray(now, dtype=float)
    difference = right_now - right_before
    of = None if strata is None else np.asarray(strata)
    drawn = question_draws(difference[:, None], of, rng=generator(seed), draws=draws)[:, 0]
    return Paired(
        questions=len(difference),
        difference=interval(mean(difference, of), drawn),
        p=p_two_sided(drawn),
        test=mcnemar(int((difference < 0).sum()), int((difference > 0).sum())),
    )


def mean(values: NDArray[np.float64], strata: NDArray[np.generic] | None = None) -> float:
    """Over the questions, or of the means of the strata."""
    if strata is None:
        return float(values.mean())
    _, codes = np.unique(strata, return_inverse=True)
    return float((np.bincount(codes, weights=values) / np.bincount(codes)).mean())
