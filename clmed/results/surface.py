"""A quadratic response surface over the settings of several runs, with intervals over seeds.

    y = b0 + sum_i b_i z_i + sum_i b_ii z_i^2 + sum_{i<j} b_ij z_i z_j

fitted by least squares (Box & Wilson, 1951, "On the Experimental Attainment of Optimum Conditions"). z runs from -1 to
1 over the values of a factor; a factor whose values are all positive and span FOLD or more enters by its logarithm, and
one with only two values has no square.

Seeds are the unit. Runs of one seed see their data in the same order and may share whole experiences, so their errors
go together; hence one surface is fitted for each seed, and every coefficient and prediction has the mean over seeds and
Student's interval with n - 1 degrees of freedom. (Resampling three seeds knows ten samples, too few for 95 %.) The
intervals are about this family of surfaces: `misfit` says how far the measured means lie from it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clmed.errors import UserError

Array = NDArray[np.float64]
FOLD = 4.0
STEPS = 41  # of each factor, where the best setting is looked for


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What is varied: its name and its values, rising."""

    name: str
    values: tuple[float, ...]

    @property
    def logarithmic(self) -> bool:
        return self.values[0] > 0 and self.values[-1] >= FOLD * self.values[0]

    def coded(self, values: Array) -> Array:
        """-1 at the lowest value, 1 at the highest."""
        low, high = self._scaled(np.array([self.values[0], self.values[-1]]))
        return (2 * self._scaled(values) - low - high) / (high - low)

    def spaced(self, steps: int) -> Array:
        """Values from the lowest to the highest, evenly spaced as the factor enters."""
        ends = self.values[0], self.values[-1]
        return np.geomspace(*ends, steps) if self.logarithmic else np.linspace(*ends, steps)

    def _scaled(self, values: Array) -> Array:
        return np.log(values) if self.logarithmic else values


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds, and where it lies with 95 % confidence (per value: shape as the mean)."""

    mean: Array
    low: Array
    high: Array

    @classmethod
    def over_seeds(cls, values: Array) -> "Interval":
        """values: seeds x anything."""
        from scipy.stats import t

        seeds = len(values)
        mean = values.mean(0)
        half = t.ppf(0.975, seeds - 1) * values.std(0, ddof=1) / math.sqrt(seeds)
        return cls(mean=mean, low=mean - half, high=mean + half)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """factors; terms: of the polynomial, as indices of factors; by_seed: seeds x terms; misfit: the largest distance
    of a setting's mean from the surface; explained: the share of the variance of the means (R squared)."""

    factors: tuple[Factor, ...]
    terms: tuple[tuple[int, ...], ...]
    by_seed: Array
    misfit: float
    explained: float

    @classmethod
    def fit(cls, factors: Sequence[Factor], settings: Array, values: Array) -> "Surface":
        """settings: n x factors, as they were set; values: seeds x n. UserError where they cannot tell a surface."""
        terms = _terms(factors)
        design = _design(factors, terms, settings)
        if len(values) < 2:
            raise UserError("a surface with intervals needs runs of two seeds at least, better five: seed=0,1,2,3,4.")
        if np.linalg.matrix_rank(design) < len(terms):
            raise UserError(
                f"these {len(settings)} settings do not tell the {len(terms)} terms of a quadratic surface; vary every "
                "factor with every other, and give each three values."
            )
        by_seed: Array = np.asarray(np.linalg.lstsq(design, values.T, rcond=None)[0].T, dtype=np.float64)
        means = values.mean(0)
        rest = means - design @ by_seed.mean(0)
        total = float(((means - means.mean()) ** 2).sum())
        explained = 1 - float((rest**2).sum()) / total if total else math.nan
        misfit = float(np.abs(rest).max())
        return cls(factors=tuple(factors), terms=terms, by_seed=by_seed, misfit=misfit, explained=explained)

    def at(self, settings: Array) -> Interval:
        """What the surface says of settings (n x factors)."""
        return Interval.over_seeds(self.each(settings))

    def each(self, settings: Array) -> Array:
        """The same by seed: seeds x n."""
        return np.asarray(self.by_seed @ _design(self.factors, self.terms, settings).T)

    @property
    def coefficients(self) -> Interval:
        """Of each term."""
        return Interval.over_seeds(self.by_seed)

    def term_name(self, term: tuple[int, ...]) -> str:
        """ "1", "tokens", "tokens²", "tokens × ratio"."""
        names = [self.factors[index].name for index in term]
        return "1" if not names else f"{names[0]}²" if len(set(term)) < len(term) else " × ".join(names)


def region(factors: Sequence[Factor], steps: int = STEPS) -> Array:
    """A grid of settings that fills the space between the lowest and the highest values: steps^factors x factors."""
    return np.array(list(itertools.product(*(factor.spaced(steps) for factor in factors))))


@dataclass(frozen=True, kw_only=True)
class Best:
    """setting: where the sum of the surfaces is highest; by_seed: where it is for each seed alone (seeds x factors)."""

    setting: Array
    by_seed: Array


def best(surfaces: Sequence[Surface]) -> Best:
    """Where the sum of surfaces over the same factors and seeds is highest within their region."""
    settings = region(surfaces[0].factors)
    total = np.sum([surface.each(settings) for surface in surfaces], axis=0)
    return Best(setting=settings[total.mean(0).argmax()], by_seed=settings[total.argmax(1)])


def _terms(factors: Sequence[Factor]) -> tuple[tuple[int, ...], ...]:
    indices = range(len(factors))
    pairs = [
        pair
        for pair in itertools.combinations_with_replacement(indices, 2)
        if pair[0] != pair[1] or len(factors[pair[0]].values) > 2
    ]
    return ((), *((index,) for index in indices), *pairs)


def _design(factors: Sequence[Factor], terms: Sequence[tuple[int, ...]], settings: Array) -> Array:
    """n x terms."""
    coded = np.stack([factor.coded(settings[:, index]) for index, factor in enumerate(factors)], axis=1)
    return np.stack([coded[:, list(term)].prod(1) for term in terms], axis=1)
