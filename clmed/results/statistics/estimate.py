"""A number with its 95 % interval."""

import math
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """`value` as measured, `low` and `high` the ends of its 95 % interval, all in one unit.

    nan at both ends where nothing is known of the spread.
    """

    value: float
    low: float
    high: float

    def __neg__(self) -> "Estimate":
        return Estimate(-self.value, -self.high, -self.low)

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return self.known and not self.low <= value <= self.high


def unknown(value: float) -> Estimate:
    """A value of whose spread nothing is known."""
    return Estimate(value, math.nan, math.nan)
