"""What was forgotten, by name: the questions that were answered rightly by the base and are wrong now."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from clmed.errors import UserError
from clmed.results.answers import QUESTION, unlike
from clmed.results.runs import Run

COLUMNS = (QUESTION, "subject", "index", "prompt_hash", "gold", "prediction", "correct")


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A question whose answer has turned.

    subject, index: where it stands in its file, counted from 0; question: what it asks, if the run kept it (an
    excerpt); key: its prompt hash; gold: the right answer; before,
    now: the base's and the answer of the first run in which it turned; runs: in so many it did, `of` so many.
    """

    benchmark: str
    subject: str
    index: int
    question: str
    key: str
    gold: str
    before: str
    now: str
    runs: int
    of: int

    @property
    def name(self) -> str:
        """`mmlu/anatomy/12`."""
        return "/".join(part for part in (self.benchmark, self.subject, str(self.index)) if part)


def flips(
    runs: Sequence[Run],
    benchmark: str,
    *,
    point: int | None = None,
    turned: Literal["forgotten", "learnt"] = "forgotten",
) -> list[Flip]:
    """Questions that turned between the base and a point (by default each run's last), those of most runs first.

    forgotten: from right to wrong; learnt: from wrong to right. runs: of one strategy, say. Raises UserError where no
    answers are kept, and for what has no right or wrong answers.
    """
    found: dict[str, Flip] = {}
    for run in runs:
        at = run.last if point is None else point
        before, now = (run.directory.answers(each, benchmark, COLUMNS) for each in (0, at))
        if not {"prompt_hash", "correct"} <= now.keys():
            raise UserError(f"{run.path}: {benchmark} has no questions that are answered rightly or wrongly.")
        base = {key: row for row, key in enumerate(unlike(before["prompt_hash"]))}
        for row, key in enumerate(unlike(now["prompt_hash"])):
            was = base.get(key)
            if was is None or bool(before["correct"][was]) != (turned == "forgotten"):
                continue
            if bool(now["correct"][row]) == bool(before["correct"][was]):
                continue
            if key in found:
                found[key] = replace(found[key], runs=found[key].runs + 1)
                continue
            found[key] = Flip(
                benchmark=benchmark,
                subject=now.get("subject", [""] * (row + 1))[row],
                index=now.get("index", range(row + 1))[row],
                question=before.get(QUESTION, [""] * (was + 1))[was],
                key=key,
                gold=now.get("gold", [""] * (row + 1))[row],
                before=before.get("prediction", [""] * (was + 1))[was],
                now=now.get("prediction", [""] * (row + 1))[row],
                runs=1,
                of=len(runs),
            )
    return sorted(found.values(), key=lambda flip: (-flip.runs, flip.subject, flip.index))
