"""Floors: how far a benchmark may fall below the base before the run warns, or stops.

A floor is a change against the base: of accuracy in points of 100 (`mmlu: -2.0`), of perplexity in per cent
(`general_perplexity: +5%`). A measurement of some questions has an interval. The same questions are answered each time,
so it is that of the mean of the differences (right now - right at the base), at 95 %, by the normal approximation. A
floor is crossed when the whole interval is below it; when only the change itself is, the sample is too small to tell,
which is said and stops nothing. A perplexity is taken as it is: it has no questions to vary over.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clmed.results import manifest
from clmed.results.metrics import ACCURACY, NATS, matrix
from clmed.results.rundir import RunDirectory

Z95 = 1.959964
Verdict = Literal["kept", "unclear", "crossed"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change against the base and half the width of its interval, in points of 100 or in per cent of perplexity."""

    value: float
    half: float
    what: str

    def verdict(self, floor: float) -> Verdict:
        """floor: negative for accuracy, positive for perplexity."""
        beyond = floor - self.value if floor < 0 else self.value - floor
        return "kept" if beyond <= 0 else "crossed" if beyond > self.half else "unclear"


def paired(before: Sequence[bool], now: Sequence[bool]) -> tuple[float, float]:
    """The mean difference of the same questions' answers and half its 95 % interval, in points of 100."""
    difference = 100 * (np.asarray(now, dtype=float) - np.asarray(before, dtype=float))
    if len(difference) < 2:
        return float(difference.mean()), math.inf
    return float(difference.mean()), Z95 * float(difference.std(ddof=1)) / math.sqrt(len(difference))


class Floors:
    """Looks at each measurement point of a run; `floors` by the names of benchmarks."""

    def __init__(
        self,
        floors: Mapping[str, float],
        *,
        stop: bool,
        directory: RunDirectory,
        say: Callable[[str], None],
    ) -> None:
        self.floors, self.stop, self.directory, self.say = floors, stop, directory, say

    def look(self, point: int) -> str:
        """Tell of floors that are crossed at `point`; why the run must stop, or nothing."""
        crossed = []
        for name, floor in self.floors.items() if point else ():
            change = self.change(point, name)
            verdict = change.verdict(floor)
            told = f"{name} changed by {change.value:+.2f} {change.what} against the base; the floor is {floor:+g}"
            if verdict == "unclear":
                self.say(f"  {told}: may be below it, but the sample is too small to tell (± {change.half:.2f})")
            elif verdict == "crossed":
                self.say(f"  floor crossed: {told}")
                crossed.append(told)
        if not crossed or not self.stop:
            return ""
        return f"stopped at a floor: {'; '.join(crossed)}. {self._last_good(point)}"

    def change(self, point: int, name: str) -> Change:
        """How the benchmark `name` has changed between the base and `point`."""
        scores = matrix(self.directory.results())
        if (nats := scores.get((name, "all", NATS))) is not None:
            return Change(value=100 * math.expm1(nats[point] - nats[0]), half=0.0, what="% of perplexity")
        whole = scores[name, "all", ACCURACY]
        _, half = paired(*(self.directory.answers(p, name)["correct"] for p in (0, point)))
        return Change(value=100 * (whole[point] - whole[0]), half=half, what="points of accuracy")

    def _last_good(self, point: int) -> str:
        """The last measurement point where every floor was kept, and the newest checkpoint made until then."""
        good = max(
            p
            for p in range(point)
            if p == 0 or all(self.change(p, name).verdict(floor) != "crossed" for name, floor in self.floors.items())
        )
        tokens = next(row["tokens"] for row in self.directory.results() if row["point"] == good)
        made = manifest.checkpoints(self.directory.checkpoints)
        kept = [path for path in made if manifest.read(path).values["place"]["tokens"] <= tokens]
        where = f"the last good checkpoint is {kept[0]}" if kept else "no checkpoint of that time is kept"
        return f"All floors were kept at point {good} ({tokens:,} tokens); {where}"
