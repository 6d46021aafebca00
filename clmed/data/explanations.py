"""An exam's explanations changed on purpose, to see what it is about them that a model learns from.

Shuffled, they are as long and as medical as before, but of another question; cut, they are the right ones, in part. All
else of the records stays as it is.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from clmed.config import SourceConfig
from clmed.data.formats import explanation_of
from clmed.data.sources import Record


def changes(source: SourceConfig) -> bool:
    """Whether the source asks for any of this."""
    return source.shuffle_explanations is not None or source.explanation_share < 1


def changed(source: SourceConfig, records: Iterable[Record]) -> Iterator[Record]:
    """The records of one part of a source, with their explanations as it asks for them.

    To be shuffled they are all held in memory: tens of megabytes for an exam of 50,000 questions.
    """
    if source.shuffle_explanations is not None:
        records = _shuffled(list(records), source.shuffle_explanations)
    for record in records:
        explanation = explanation_of(record)
        kept = math.ceil(source.explanation_share * len(explanation))
        yield {**record, "Explanation": explanation[:kept]}


def _shuffled(records: Sequence[Record], seed: int) -> Iterator[Record]:
    """Each explanation goes to the next question of a random round of all that have one.

    So none is lost, none comes twice, and none stays where it was (but where there is only one). A question without an
    explanation stays without.
    """
    explained = [index for index, record in enumerate(records) if explanation_of(record)]
    order = np.random.default_rng(seed).permutation(explained)
    giver = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    for index, record in enumerate(records):
        yield {**record, "Explanation": explanation_of(records[giver.get(index, index)])}
