"""Which letters are right how often, in training and in test: a model learns that, too, and it is no knowledge.

Two things are compared: how often each letter is the answer, among answers of one letter, and the share of answers of
several letters. They *differ* when Pearson's chi-square test says p < 0.01 and some share is at least 3 points apart:
in large files every difference is significant, in small ones it is chance.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clmed.config import SourceConfig
from clmed.data import exams, sources
from clmed.data.scanning import cell_text

LETTERS, SEVERAL = "right letters", "numbers of right letters"
SIGNIFICANT = 0.01
POINTS = 0.03
RARE = 5  # an expected count below which chi-square is no good: such letters are put together


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Shares of answers in training and in test, by letter, or by "one" and "several"."""

    what: str
    train: dict[str, float]
    test: dict[str, float]
    p: float

    @property
    def largest(self) -> float:
        """The largest gap between two shares."""
        return max(abs(self.train[key] - self.test[key]) for key in self.train)

    @property
    def matters(self) -> bool:
        """Whether it is significant and not small."""
        return self.p < SIGNIFICANT and self.largest >= POINTS


def answers(source: SourceConfig, local: Path | None) -> list[str]:
    """The right letters of every record of an exam; records that hold no document are passed over."""
    found = []
    for _, record in sources.records(source, local):
        answer = cell_text(record["Answer"])
        if not exams.is_missing(answer) and not exams.is_missing(cell_text(record["Question"])):
            found.append(exams.parse_answer(answer, exams.parse_options(record["Options"])))
    return found


def differences(train: Sequence[str], test: Sequence[str]) -> Iterator[Difference]:
    """How the answers ("A", "BD", …) of two exams compare; nothing where there is nothing to compare."""
    several = [Counter("several" if len(answer) > 1 else "one" for answer in side) for side in (train, test)]
    letters = [Counter(answer for answer in side if len(answer) == 1) for side in (train, test)]
    for what, (one, other) in ((LETTERS, letters), (SEVERAL, several)):
        keys = sorted({*one, *other})
        if len(keys) > 1 and one and other:
            yield Difference(
                what=what,
                train={key: one[key] / one.total() for key in keys},
                test={key: other[key] / other.total() for key in keys},
                p=_p_value([[side[key] for key in keys] for side in (one, other)]),
            )


def _p_value(counts: list[list[int]]) -> float:
    """Of the hypothesis that both rows are drawn from one distribution."""
    from scipy.stats import chi2_contingency

    whole = [sum(row) for row in counts]
    share = [sum(column) / sum(whole) for column in zip(*counts, strict=True)]
    rare = [index for index, part in enumerate(share) if part * min(whole) < RARE]
    kept = [index for index in range(len(share)) if index not in rare]
    together = [[row[index] for index in kept] + [sum(row[index] for index in rare)] * bool(rare) for row in counts]
    columns = [column for column in zip(*together, strict=True) if sum(column)]
    if len(columns) < 2:
        return 1.0
    return float(chi2_contingency(list(zip(*columns, strict=True)), correction=False).pvalue)
