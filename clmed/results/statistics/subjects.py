"""What changed in which subject, tested on the same questions and corrected for the number of subjects."""

from dataclasses import dataclass, replace

import numpy as np

from clmed.errors import UserError
from clmed.results.answers import read_answers
from clmed.results.runs import Run
from clmed.results.statistics.estimate import Estimate
from clmed.results.statistics.paired import paired
from clmed.results.statistics.verdicts import ALPHA, holm


@dataclass(frozen=True, kw_only=True)
class SubjectChange:
    """before, now: accuracies as shares; p: McNemar's mid-p, corrected by Holm over the subjects."""

    subject: str
    questions: int
    before: float
    now: float
    change: Estimate
    p: float

    @property
    def significant(self) -> bool:
        return self.p <= ALPHA


def subject_changes(run: Run, benchmark: str, *, point: int | None = None) -> list[SubjectChange]:
    """Of each subject between the base and a point (by default the last), what lost most first.

    Raises UserError where no answers are kept, or they are not right or wrong.
    """
    at = run.last if point is None else point
    before, now = (read_answers(run.directory, each, benchmark) for each in (0, at))
    if before is None or now is None or not now.right_or_wrong:
        raise UserError(f"{run.path} kept no right and wrong answers to {benchmark} at the base and at point {at}.")
    now = now.only(before.keys)
    found = []
    for subject in np.unique(before.subjects):
        these = before.subjects == subject
        test = paired(before.values[these], now.values[these])
        found.append(
            SubjectChange(
                subject=str(subject),
                questions=test.questions,
                before=float(before.values[these].mean()),
                now=float(now.values[these].mean()),
                change=test.difference,
                p=test.test.mid_p,
            )
        )
    corrected = holm([each.p for each in found])
    found = [replace(each, p=p) for each, p in zip(found, corrected, strict=True)]
    return sorted(found, key=lambda each: (each.change.value, each.subject))
