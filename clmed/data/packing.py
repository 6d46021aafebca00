"""From documents to rows of a fixed length in which no document attends to another.

A model of transformers told `position_ids` that restart at each document (with `use_cache=False` and no
`attention_mask`) masks attention between the documents itself. A row of length 8 with the documents abc and de (</s>
is their end), and padding, which is a document of its own:

    input_ids      a  b  c  </s> d  e  </s> <pad>
    position_ids   0  1  2  3    0  1  2    0
    labels         -  b  c  </s> -  e  </s> -          (- is -100: no loss; not shifted, as in transformers)

*Splitting* concatenates texts and lets them continue in the next row, where their positions start again: every row is
full, except the last. *Keeping whole* suits questions with answers, which are worth little in halves: best fit
decreasing, that is, the longest first, each into the open row with the least room that holds it. A window of documents
is sorted at a time, and only so many rows are open, so that memory is bounded.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from clmed.data.formats import Document

IGNORED = -100
# CMExam's questions in rows of 1,024: 1.2 % of padding; in the file's order 2.2 %.
OPEN_ROWS = 128
WINDOW = 32  # rows' worth of documents


@dataclass(frozen=True, kw_only=True)
class Row:
    """One training sequence: int32 arrays of the row's length, and what it holds.

    tokens: all but padding. supervised: tokens with a label. bytes: the UTF-8 bytes of text that the tokens cover.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    tokens: int
    supervised: int
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
    """`open_rows` is sorted by (room left, number of the row), so that the best fit is found by bisection."""
    open_rows: list[tuple[int, int]] = []
    groups: dict[int, list[Document]] = {}
    for number, document in enumerate(_longest_first(documents, WINDOW * length)):
        at = bisect_left(open_rows, (len(document), -1))
        room, row = open_rows.pop(at) if at < len(open_rows) else (length, number)
        groups.setdefault(row, []).append(document)
        room -= len(document)
        if room:
            insort(open_rows, (room, row))
        else:
            yield groups.pop(row)
        if len(open_rows) > OPEN_ROWS:
            yield groups.pop(open_rows.pop(0)[1])  # the fullest
    yield from groups.values()


def _longest_first(documents: Iterable[Document], tokens: int) -> Iterator[Document]:
    window: list[Document] = []
    waiting = 0
    for document in documents:
        window.append(document)
        waiting += len(document)
        if waiting >= tokens:
            yield from sorted(window, key=len, reverse=True)
            window, waiting = [], 0
    yield from sorted(window, key=len, reverse=True)


def _row(group: list[Document], length: int, pad_id: int) -> Row:
    input_ids = np.full(length, pad_id, dtype=np.int32)
    labels = np.full(length, IGNORED, dtype=np.int32)
    position_ids = np.empty(length, dtype=np.int32)
    counts = np.arange(length, dtype=np.int32)
    start = 0
    for document in group:
        end = start + len(document)
        input_ids[start:end] = document.ids
        position_ids[start:end] = counts[: end - start]
        labels[start:end] = np.where(document.supervised, document.ids, IGNORED)
        labels[start] = IGNORED  # the token before belongs to another document, or to the row before
        start = end
    position_ids[start:] = counts[: length - start]
    return Row(
        input_ids=input_ids,
        position_ids=position_ids,
        labels=labels,
        tokens=start,
        supervised=int((labels != IGNORED).sum()),
        bytes=int(sum(document.bytes.sum() for document in group)),
    )
