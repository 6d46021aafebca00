"""What measuring a benchmark gives, and how it is followed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What measuring one benchmark once gave.

    scores: one {category, metric, score, questions} each; answers: columns of the record by question; by_subject:
    whether scores average over subjects.
    """

    scores: Sequence[Mapping[str, Any]]
    answers: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seconds: float = 0.0
    by_subject: bool = False


Follow = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""follow(what, total) is a context whose value is told how many more are done."""


def unseen(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Shows nothing."""
    return nullcontext(lambda done: None)
