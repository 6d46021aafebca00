"""What a run answered to the questions of a benchmark, at the base and at its last point."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clmed.results.metrics import SUBJECT
from clmed.results.runs import Run

COLUMNS = ("subject", "categories", "prompt_hash", "correct")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Equally long: one entry a question; base, now: 1 for a right answer and 0 for a wrong one."""

    subjects: NDArray[np.str_]
    categories: Sequence[Sequence[str]]
    base: NDArray[np.float64]
    now: NDArray[np.float64]

    def members(self, category: str) -> NDArray[np.bool_]:
        """Which questions belong to a category, or to a subject ("subject:anatomy")."""
        if category.startswith(SUBJECT):
            return self.subjects == category.removeprefix(SUBJECT)
        return np.array([category in names for names in self.categories], dtype=bool)


@lru_cache(maxsize=64)
def answered(run: Run, benchmark: str) -> Answered | None:
    """None where not all is known; what is damaged is told among the problems of the run."""
    directory = run.directory
    if not run.last or not all(directory.has_answers(point, benchmark) for point in (0, run.last)):
        return None
    base, now = (run.columns(benchmark, point, COLUMNS) for point in (0, run.last))
    if base is None or now is None:
        return None
    if not set(COLUMNS) <= base.keys() or base["prompt_hash"] != now.get("prompt_hash"):
        return None
    if None in base["correct"] or None in now["correct"]:  # graded, neither right nor wrong
        return None
    return Answered(
        subjects=np.array(base["subject"], dtype=np.str_),
        categories=base["categories"],
        base=np.array(base["correct"], dtype=float),
        now=np.array(now["correct"], dtype=float),
    )
