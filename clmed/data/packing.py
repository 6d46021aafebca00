"""From documents to rows of a fixed length in which no document attends to another.

A model of transformers told `position_ids` that restart at each document (with `use_cache=False` and no
`attention_mask`) masks attention between the documents itself. A row of length 8 with the documents abc and de (</s>
is their end), and padding, which is a document of its own:

    input_ids      a  b  c  </s> d  e  </s> <pad>
    position_ids   0  1  2  3    0  1  2    0
    labels         -  b  c  </s> -  e  </s> -          (- is -100: no loss; not shifted, as in transformers)
    weights        0  1  1  1    0  1  1    0          (of each label in the loss)

*Splitting* concatenates texts and lets them continue in the next row, where their positions start again: every row is
full, except the last. *Keeping whole* suits questions with answers, which are worth little in halves: best fit, longest
first. Documents wait in a window of bounded size; a row begins with the longest of them, and is filled by the one that
leaves the least room, or the pair of them where that leaves less. (Best fit decreasing takes one at a time and leaves
twice the room: of CMExam's questions with explanations, in rows of 1,024, 0.3 to 0.5 % instead of 0.1 to 0.2 %.)
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from clmed.data.tokenising import Document

IGNORED = -100
WINDOW = 2**20  # tokens of the documents that wait: 12 MB


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training sequence: arrays of the row's length (int32, weights float32), and what it holds.

    tokens: all but padding. supervised: tokens with a label. mass: the sum of the weights. bytes: the UTF-8 bytes of
    text that the tokens cover.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    tokens: int
    supervised: int
    mass: float
    bytes: int


@dataclass(kw_only=True)
class Losses:
    """What packing had to leave out. cut: documents longer than a row, whose end is lost; untaught: documents of which
    nothing supervised was left (after the cut, or at all), which are left out."""

    cut: int = 0
    untaught: int = 0


def pack(
    documents: Iterable[Document], length: int, pad_id: int, split: bool, losses: Losses | None = None
) -> Iterator[Row]:
    """Rows of `length` tokens, in a bounded window of the documents' order; `losses` is counted up on the way."""
    losses = losses or Losses()
    groups = _concatenate(documents, length) if split else _best_fit(_cut(documents, length, losses), length)
    return (_row(group, length, pad_id) for group in groups)


def _concatenate(documents: Iterable[Document], length: int) -> Iterator[list[Document]]:
    group: list[Document] = []
    room = length
    for document in documents:
        start = 0
        while start < len(document):
            part = document[start : start + room]
            group.append(part)
            start += len(part)
            room -= len(part)
            if not room:
                yield group
                group, room = [], length
    if group:
        yield group


def _cut(documents: Iterable[Document], length: int, losses: Losses) -> Iterator[Document]:
    for document in documents:
        losses.cut += len(document) > length
        kept = document[:length]
        if kept.supervised.any():
            yield kept
        else:
            losses.untaught += 1


def _best_fit(documents: Iterable[Document], length: int) -> Iterator[list[Document]]:
    """The window is used up to a rest and then filled again. Topped up after every row it would come to hold what fits
    nothing (of CMExam, six times over, 1.6 % of padding instead of 0.1 %)."""
    waiting: list[deque[Document]] = [deque() for _ in range(length + 1)]  # by length, first come first served
    numbers = np.zeros(length + 1, dtype=np.int64)
    tokens, every, more = 0, iter(documents), True
    while more:
        while more and tokens < WINDOW:
            if more := (document := next(every, None)) is not None:
                waiting[len(document)].append(document.copy())
                numbers[len(document)] += 1
                tokens += len(document)
        while tokens > (WINDOW // 16 if more else 0):
            chosen = _fill(numbers, length)
            tokens -= sum(chosen)
            yield [waiting[one].popleft() for one in chosen]


def _fill(numbers: np.ndarray, length: int) -> list[int]:
    """The lengths of the documents for one row, longest first, taken out of `numbers` (of documents by length)."""
    chosen: list[int] = []
    room = length
    while len(fitting := np.flatnonzero(numbers[: room + 1])):
        longest = int(fitting[-1])
        for one in _best_pair(numbers, room, longest) if chosen else [longest]:
            numbers[one] -= 1
            chosen.append(one)
            room -= one
    return chosen


def _best_pair(numbers: np.ndarray, room: int, longest: int) -> list[int]:
    """Two lengths that leave less of `room` than `longest`, which is the longest that fits; without such, that alone.

    Of several such pairs the one with the smallest difference: short documents are kept for what only they can fill.
    """
    here = numbers[: room + 1] > 0
    for both in range(min(room, 2 * longest), longest, -1):
        low = np.arange(both // 2 + 1)
        fits = here[low] & here[both - low]
        if both % 2 == 0:
            fits[-1] &= numbers[both // 2] > 1
        if fits.any():
            shorter = int(np.flatnonzero(fits)[-1])
            return [both - shorter, shorter]
    return [longest]


def _row(group: list[Document], length: int, pad_id: int) -> Row:
    input_ids = np.full(length, pad_id, dtype=np.int32)
    labels = np.full(length, IGNORED, dtype=np.int32)
    position_ids = np.empty(length, dtype=np.int32)
    weights = np.zeros(length, dtype=np.float32)
    counts = np.arange(length, dtype=np.int32)
    start = 0
    for document in group:
        end = start + len(document)
        input_ids[start:end] = document.ids
        position_ids[start:end] = counts[: end - start]
        weights[start:end] = document.weights
        weights[start] = 0  # the token before belongs to another document, or to the row before
        start = end
    position_ids[start:] = counts[: length - start]
    taught = weights > 0
    labels[taught] = input_ids[taught]
    return Row(
        input_ids=input_ids,
        position_ids=position_ids,
        labels=labels,
        weights=weights,
        tokens=start,
        supervised=int(taught.sum()),
        mass=float(weights.sum(dtype=np.float64)),
        bytes=int(sum(document.bytes.sum() for document in group)),
    )
