"""Floors: how far a benchmark may fall below the base before the run warns, or stops.

A floor is a change against the base: of accuracy in points of 100 (`mmlu: -2.0`), of perplexity in per cent
(`general_perplexity: +5%`). A measurement of some questions, or of some text, has an interval, at 95 %. The same
questions are answered each time, so it is that of the mean of the differences (right now - right at the base), by the
normal approximation with two more questions, one that rose and one that fell (Bonett & Price 2012, J. Educ. Behav.
Stat. 37): three questions that all fell are no proof. Where the score is the mean over subjects, so is the difference,
and its variance that of a stratified sample (Cochran 1977, Sampling Techniques, section 5.4); the two questions are
then added to as many as would tell equally much of a plain mean (Kish's effective size). Of a perplexity the interval
is that of the ratio sum(nats now - nats at the base) / sum(tokens) over the rows of text (Cochran, section 6.4), by
Student's t. A floor is crossed when the whole interval is beyond it; when only the change itself is, the sample is too
small to tell, which is said and stops nothing. Other scores of lm-evaluation-harness than accuracies have no interval
here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from clmed.results import manifest
from clmed.results.metrics import NATS, WHOLE, is_accuracy, lower_is_better, matrix, primary_metric
from clmed.results.rundir import RunDirectory
from clmed.results.start import keep
from clmed.results.statistics.bootstrap import weighted

Z95 = 1.959964
SAME = 1e-4  # points of 100
Verdict = Literal["kept", "unclear", "crossed"]
Texts = Mapping[str, Sequence[float]]
"""nats and tokens of each row of text."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change against the base, in points of 100 or in per cent of perplexity.

    half: how far its interval reaches towards no change, which is where the floor is.
    """

    value: float
    half: float
    what: str

    def verdict(self, floor: float) -> Verdict:
        """floor: negative for accuracy, positive for perplexity."""
        beyond = floor - self.value if floor < 0 else self.value - floor
        return "kept" if beyond <= 0 else "crossed" if beyond > self.half else "unclear"


def paired(before: Sequence[float], now: Sequence[float], subjects: Sequence[str] | None = None) -> tuple[float, float]:
    """The mean difference of the same questions' scores (0 to 1), and how far its 95 % interval reaches towards none,
    in points of 100; subjects: of each question, where the mean is that of the subjects' means."""
    difference = 100 * (np.asarray(now, dtype=float) - np.asarray(before, dtype=float))
    codes, weights = weighted(None if subjects is None else np.asarray(subjects), len(difference))
    sizes = np.bincount(codes)
    means = np.bincount(codes, weights=difference) / sizes
    value = float(weights @ means)
    free = sizes if len(sizes) == 1 else np.maximum(sizes - 1, 1)
    spread = np.bincount(codes, weights=(difference - means[codes]) ** 2) / free
    variance = float((weights**2 * spread / sizes).sum())
    n = 1 / float((weights**2 / sizes).sum())
    more = n**2 * variance + 2 * 100.0**2 + 2 * n * value**2 / (n + 2)
    return value, (2 * abs(value) + Z95 * math.sqrt(more)) / (n + 2)


def paired_texts(before: Texts, now: Texts) -> tuple[float, float]:
    """The change of the perplexity of the same rows of text in per cent, and how far its 95 % interval reaches down."""
    tokens = np.asarray(before["tokens"], dtype=float)
    difference = np.asarray(now["nats"]) - np.asarray(before["nats"])
    mean = float(difference.sum() / tokens.sum())
    if len(difference) < 2:
        return _per_cent(mean), math.inf
    deviation = math.sqrt(len(tokens)) * float((difference - mean * tokens).std(ddof=1)) / tokens.sum()
    quantile = float(stdtrit(len(difference) - 1, 0.975))
    return _per_cent(mean), _per_cent(mean) - _per_cent(mean - quantile * deviation)


def _per_cent(nats: float) -> float:
    """A change in nats per token as one of perplexity, however large (exp overflows at 710)."""
    return 100 * math.expm1(min(nats, 700.0))


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
        rows = self.directory.results()
        metric = primary_metric(rows, name)
        whole = matrix(rows)[name, WHOLE, metric]
        base, now = (self.directory.answers(p, name) for p in (0, point))
        if metric == NATS:
            value, half = paired_texts(base, now)
            return Change(value=value, half=half, what="% of perplexity")
        if lower_is_better(metric):
            return Change(value=100 * (whole[point] / whole[0] - 1), half=0.0, what=f"% of {metric}")
        if not is_accuracy(metric):
            return Change(value=whole[point] - whole[0], half=0.0, what=f"points of {metric}")
        value = 100 * (whole[point] - whole[0])
        then, later = (answers.get("score", answers["correct"]) for answers in (base, now))
        mean, half = paired(then, later)
        if abs(mean - value) > SAME and "subject" in now:  # the score is no mean over questions: perhaps over subjects
            mean, half = paired(then, later, now["subject"])
        if not abs(mean - value) <= SAME:  # neither, or a question without a score: no interval that would be its own
            half = 0.0
        return Change(value=value, half=half, what="points of accuracy")

    def _last_good(self, point: int) -> str:
        """The last measurement point where every floor was kept, and the newest checkpoint made until then.

        That is marked, so that it stays when the stop itself is saved.
        """
        good = max(
            p
            for p in range(point)
            if p == 0 or all(self.change(p, name).verdict(floor) != "crossed" for name, floor in self.floors.items())
        )
        tokens = next(row["tokens"] for row in self.directory.results() if row["point"] == good)
        where, damaged = "no checkpoint of that time is kept", ""
        for path in manifest.checkpoints(self.directory.checkpoints):
            try:
                then = manifest.read(path).values["place"]["tokens"]
            except ValueError as error:
                damaged += f"; passed over {path}, which is damaged ({error})"
                continue
            if then <= tokens:
                keep(path)
                where = f"the last good checkpoint is {path}"
                break
        return f"All floors were kept at point {good} ({tokens:,} tokens); {where}{damaged}"
