"""What may be said: retained, forgotten or undecided; and p-values of many comparisons, corrected."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from clmed.results.statistics.estimate import Estimate

MARGIN = 0.01
ALPHA = 0.05
SEEDS_OF_SMALL_WORLDS, SEEDS = 5, 3
Kind = Literal["retained", "forgotten", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """needs: about how many `of` (questions, or seeds) would decide it, where it is undecided and that can be told."""

    kind: Kind
    needs: int | None = None
    of: Literal["questions", "seeds"] = "questions"

    def __str__(self) -> str:
        return self.kind + (f", needs about {self.needs:,} {self.of}" if self.needs is not None else "")


def verdict(
    change: Estimate,
    count: int,
    *,
    margin: float = MARGIN,
    of: Literal["questions", "seeds"] = "questions",
    retained: bool | None = None,
    forgotten: bool | None = None,
    tests: int = 1,
) -> Verdict:
    """Of a change against the base, in the unit of `margin` (of accuracy a share: 0.01 is a point).

    retained: the whole interval is above -margin (non-inferiority: Piaggio et al. 2012, CONSORT extension, JAMA 308);
    forgotten: not so, and the whole interval is below 0; else undecided. `retained` and `forgotten` replace these
    comparisons where `tests` of them were corrected. count: how many questions (or seeds) the interval rests on, from
    which follows how many would do, its width shrinking with their square root, even if all the tests were strict.
    """
    above = change.known and change.low > -margin if retained is None else retained
    below = change.known and change.high < 0 if forgotten is None else forgotten
    if above:
        return Verdict(kind="retained")
    if below:
        return Verdict(kind="forgotten")
    needed = None
    if change.known:
        strict, plain = (NormalDist().inv_cdf(1 - ALPHA / 2 / number) for number in (tests, 1))
        half = (change.high - change.low) / 2 * strict / plain
        distance = max(change.value + margin, -change.value)  # to what decides it, the nearer way
        needed = max(count + 1, _two_digits(count * (half / distance) ** 2)) if distance else None
    return Verdict(kind="undecided", needs=needed, of=of)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that hold for the whole family.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def seeds_needed(config: dict[str, Any]) -> int:
    """How many seeds a statement about a strategy rests on, rather than about a run.

    Three; five where the model is built in (MiniWorld): so small a model differs more from seed to seed.
    """
    return SEEDS_OF_SMALL_WORLDS if (config.get("model") or {}).get("build") else SEEDS


def _two_digits(count: float) -> int:
    """Rounded up to two digits: it is an estimate."""
    unit = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / unit) * unit
