"""The answers of a run to the questions of a benchmark at one point, as arrays that can be put beside another run's."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clmed.errors import UserError
from clmed.results.rundir import RunDirectory
from clmed.results.sound import wrong_answers

Texts = NDArray[np.str_]
QUESTION = "question"  # what it asks; kept with the answers of the base only, since it stays the same
COLUMNS = ("subject", "index", "prompt_hash", "correct", "score", "nats", "tokens", "bytes")
VALUES = ("correct", "score", "nats", "tokens")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One entry a question (or row of text), in the order asked.

    keys: equal for equal prompts (or rows), in every run; subjects (empty for text), index: the question's place in
    its file; values: 1 for a right answer and 0 for a wrong one, a task's own score, or nats; tokens: of a row of text,
    else None.
    """

    keys: Texts
    subjects: Texts
    index: NDArray[np.int64]
    values: NDArray[np.float64]
    tokens: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def right_or_wrong(self) -> bool:
        return self.tokens is None and bool(np.isin(self.values, (0.0, 1.0)).all())

    def holds(self, keys: Texts) -> bool:
        """Whether all of them are here."""
        return np.array_equal(self.keys, keys) or bool(np.isin(keys, self.keys).all())

    def only(self, keys: Texts) -> "Answers":
        """Those to `keys`, in their order; all of them must be here."""
        if np.array_equal(self.keys, keys):
            return self
        order = np.argsort(self.keys)
        places = order[np.searchsorted(self.keys, keys, sorter=order)]
        return replace(
            self,
            keys=self.keys[places],
            subjects=self.subjects[places],
            index=self.index[places],
            values=self.values[places],
            tokens=None if self.tokens is None else self.tokens[places],
        )


def sound_answers(run: RunDirectory, point: int, benchmark: str, names: Collection[str]) -> dict[str, list[Any]]:
    """Those of the columns that there are, and what every question was given.

    Raises UserError for a damaged file, and for one that is not like the base's, to which it is put row by row.
    """
    columns = run.answers(point, benchmark, {*names, *VALUES})
    file, base = (run.answers_file(each, benchmark) for each in (point, 0))
    if wrong := wrong_answers(columns):
        raise UserError(f"{file} is damaged: {wrong}.")
    if point and run.has_answers(0, benchmark):
        (rows, found), (asked, known) = (run.answers_shape(each, benchmark) for each in (point, 0))
        if rows != asked:
            raise UserError(f"{file} has {rows:,} rows and {base} {asked:,}: one of them is damaged.")
        if odd := (set(found) ^ set(known)) & {*COLUMNS, "categories"}:
            raise UserError(f"Of {file} and {base} one has no column {min(odd)}: it is damaged.")
    return columns


def read_answers(run: RunDirectory, point: int, benchmark: str) -> Answers | None:
    """None where none were kept, or not every question has a value. Raises UserError for a damaged file."""
    if not run.has_answers(point, benchmark):
        return None
    columns = sound_answers(run, point, benchmark, COLUMNS)
    values = columns.get("nats") or columns.get("score") or columns.get("correct")
    if not values or any(value is None for value in values):
        return None
    if "nats" in columns:
        keys = [
            " ".join(map(str, row)) for row in zip(*(columns[n] for n in ("index", "tokens", "bytes")), strict=True)
        ]
    elif "prompt_hash" in columns:
        keys = columns["prompt_hash"]
    else:
        return None
    return Answers(
        keys=np.array(unlike(keys)),
        subjects=np.array(columns.get("subject", [""] * len(keys)), dtype=np.str_),
        index=np.array(columns.get("index", range(len(keys)))),
        values=np.array(values, dtype=np.float64),
        tokens=np.array(columns["tokens"], dtype=np.float64) if "nats" in columns else None,
    )


def shared(keys: Sequence[Texts]) -> Texts:
    """The keys that all hold, in the order of the first."""
    first = keys[0]
    if all(np.array_equal(first, other) for other in keys[1:]):
        return first
    return first[np.isin(first, reduce(np.intersect1d, keys))]


def unlike(keys: Sequence[str]) -> Sequence[str]:
    """A question that is asked twice has two keys."""
    if len(set(keys)) == len(keys):
        return keys
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append(key if seen[key] == 1 else f"{key} {seen[key]}")
    return found
