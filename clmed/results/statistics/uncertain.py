"""A value with what other questions and other seeds would have made of it: from answers by draws, else by formula."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np

from clmed.results.statistics.bootstrap import Floats, generator, interval, p_above, seed_draws
from clmed.results.statistics.estimate import LEVEL, Estimate, unknown

NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Uncertain:
    """questions: draws around `value` had other questions been asked, or where no answers are kept their variance (nan:
    unknown); seeds: the value of each seed, whose mean is `value`; one alone says nothing of others. normal: whether
    beyond all draws lie a normal distribution's tails, of which a p-value may be read.
    """

    value: float
    questions: Floats | float
    seeds: tuple[float, ...]
    normal: bool = True

    @cached_property
    def _draws(self) -> Floats:
        assert not isinstance(self.questions, float)
        deviations = seed_draws(self.seeds, rng=generator(len(self.seeds), "seeds"), draws=len(self.questions))
        return self.questions + deviations

    @cached_property
    def _error(self) -> tuple[float, float]:
        """By formula: the standard error and its degrees of freedom (Satterthwaite 1946), the questions' infinite."""
        assert isinstance(self.questions, float)
        between = _variance(self.seeds)
        total = self.questions + between
        return math.sqrt(total), (len(self.seeds) - 1) * (total / between) ** 2 if between else math.inf

    def estimate(self) -> Estimate:
        """With its 95 % interval."""
        return self._estimate

    @cached_property
    def _estimate(self) -> Estimate:
        if not isinstance(self.questions, float):
            return interval(self.value, self._draws)
        error, freedom = self._error
        if math.isnan(error) or math.isnan(self.value):
            return unknown(self.value)
        half = error * _quantile((1 + LEVEL) / 2, freedom)
        return Estimate(self.value, self.value - half, self.value + half)

    def p_two_sided(self, null: float = 0.0) -> float:
        """p-value of "it is `null`"; 1 where nothing is known of the spread."""
        if not isinstance(self.questions, float):
            return min(1.0, 2 * min(self.p_above(null), (-self).p_above(-null)))
        side = self if self.value > null else -self
        return min(1.0, 2 * side.p_above(null if side is self else -null))

    def p_above(self, bound: float) -> float:
        """One-sided p-value of "it is not above `bound`"; by formula, too, where it lies beyond all draws."""
        if not isinstance(self.questions, float):
            p = p_above(self._draws, bound)
            return min(p, self._formula.p_above(bound)) if self.normal and p <= 1.5 / len(self._draws) else p
        error, freedom = self._error
        if math.isnan(error) or math.isnan(self.value):
            return 1.0
        if not error:
            return 0.0 if self.value > bound else 1.0
        return _tail((self.value - bound) / error, freedom)

    def __neg__(self) -> "Uncertain":
        questions = self.questions if isinstance(self.questions, float) else -self.questions
        seeds = tuple(-value for value in self.seeds)
        return Uncertain(value=-self.value, questions=questions, seeds=seeds, normal=self.normal)

    @cached_property
    def _formula(self) -> "Uncertain":
        """The same with the variance of the draws."""
        variance = self.questions if isinstance(self.questions, float) else float(self.questions.var())
        return Uncertain(value=self.value, questions=variance, seeds=self.seeds, normal=self.normal)

    @property
    def by_seeds(self) -> bool:
        """Whether more of the spread comes from the seeds than from the questions."""
        within = self._formula.questions
        return isinstance(within, float) and _variance(self.seeds) > within


def mean_of(parts: Sequence[Uncertain]) -> Uncertain:
    """The mean of values that rest on different questions, but on the same seeds in the same order.

    Where they have not as many seeds each, nothing is said of seeds.
    """
    share, seeds = 1 / len(parts), [part.seeds for part in parts]
    drawn = [part.questions for part in parts if not isinstance(part.questions, float)]
    if len(drawn) == len(parts):
        questions: Floats | float = share * np.sum(drawn, axis=0)
    else:
        variances = [p.questions if isinstance(p.questions, float) else float(p.questions.var()) for p in parts]
        questions = share**2 * sum(variances)
    return Uncertain(
        value=share * sum(part.value for part in parts),
        questions=questions,
        seeds=tuple(share * sum(values) for values in zip(*seeds, strict=True))
        if len(set(map(len, seeds))) == 1
        else (),
        normal=all(part.normal for part in parts),
    )


def _variance(seeds: Sequence[float]) -> float:
    """Of the mean of the seeds' values."""
    if len(seeds) < 2:
        return 0.0
    mean = sum(seeds) / len(seeds)
    return sum((each - mean) ** 2 for each in seeds) / (len(seeds) - 1) / len(seeds)


@lru_cache(maxsize=4096)
def _quantile(share: float, freedom: float) -> float:
    if math.isinf(freedom):
        return NORMAL.inv_cdf(share)
    from scipy.special import stdtrit  # takes as long to import as all else here to compute

    return float(stdtrit(freedom, share))


def _tail(distance: float, freedom: float) -> float:
    if math.isinf(freedom):
        return 0.5 * math.erfc(distance / math.sqrt(2))
    from scipy.special import stdtr

    return float(stdtr(freedom, -distance))
