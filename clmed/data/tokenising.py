"""From pieces of text to tokens, each with its weight in the loss and the bytes that it covers.

The whole text is tokenised at once, exactly as a user's text would be; tokenising prompt and answer apart would put
token borders where a model never sees them. A token has the largest weight among those of the pieces that it holds a
part of: where it spans the border of prompt and answer, and where a character is split over several tokens, no part of
the answer is lost. The end-of-text token has the weight 1, the first token none (nothing predicts it).

Only the tokenizer itself costs time: what the tokens cover is read from a table of byte-level vocabularies, and asked
token by token only of other kinds of tokenizers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from clmed.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from clmed.data.formats import Pieces


@dataclass(frozen=True, kw_only=True)
class Document:
    """One tokenised text; the three arrays have the same length.

    ids: int32. weights: float32, in the loss; 0 for none. bytes: int32, the UTF-8 bytes of the text that each token
    covers; special tokens cover nothing, and the sum is the text's size.
    """

    ids: np.ndarray
    weights: np.ndarray
    bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> "Document":
        return Document(ids=self.ids[part], weights=self.weights[part], bytes=self.bytes[part])

    def copy(self) -> "Document":
        """With arrays of its own: a document that waits must not keep its whole batch in memory."""
        return Document(ids=self.ids.copy(), weights=self.weights.copy(), bytes=self.bytes.copy())

    @property
    def supervised(self) -> np.ndarray:
        """Which tokens take part in the loss."""
        return self.weights > 0


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Several documents end to end, which travel between processes as few arrays; ends: (documents,) int64."""

    joined: Document
    ends: np.ndarray

    def __iter__(self) -> Iterator[Document]:
        start = 0
        for end in self.ends.tolist():
            yield self.joined[start:end]
            start = end


class Encoder:
    """Tokenises batches of documents. It can be pickled, and needs nothing but the library `tokenizers`."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", closed: bool = True) -> None:
        """closed: with the special tokens that the tokenizer puts around a text, and end-of-text where these lack it.

        Raises UserError for a tokenizer that cannot encode training data.
        """
        if not tokenizer.is_fast or tokenizer.eos_token_id is None:
            lack = "end-of-text token (eos_token)" if tokenizer.is_fast else "tokenizer.json, which gives token offsets"
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path or 'given'} cannot encode training data: it has no {lack}."
            )
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        self.backend = Tokenizer.from_str(json.dumps(state | {"truncation": None, "padding": None}))  # of earlier calls
        self.before, self.after = _special_tokens(self.backend, int(tokenizer.eos_token_id)) if closed else ([], [])
        self.sizes = _byte_sizes(state, self.backend)

    def __call__(self, batch: Sequence["Pieces"]) -> Documents:
        whole = ["".join(text for text, _ in pieces) for pieces in batch]
        encodings = self.backend.encode_batch(whole, add_special_tokens=False)
        made = [self._document(*each) for each in zip(batch, whole, encodings, strict=True)]
        joined = {name: np.concatenate([getattr(one, name) for one in made]) for name in ("ids", "weights", "bytes")}
        return Documents(joined=Document(**joined), ends=np.cumsum([len(one) for one in made]))

    def _document(self, pieces: "Pieces", text: str, encoding: Any) -> Document:
        body = np.array(encoding.ids, dtype=np.int32)
        size = len(text.encode())
        sizes = self.sizes[body] if self.sizes is not None else None
        if sizes is None or sizes.sum() != size:  # a normaliser has changed the text, or it is no byte-level vocabulary
            sizes = _sizes_by_offsets(text, encoding)
        weights = _weights(pieces, np.cumsum(sizes))
        after = self.after if not len(body) or self.after[-1:] != [body[-1]] else self.after[:-1]
        ids = np.concatenate([np.array(self.before, np.int32), body, np.array(after, np.int32)])
        before_body, behind = len(self.before), len(self.before) + len(body)
        all_weights, all_sizes = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.int32)
        all_weights[before_body:behind], all_sizes[before_body:behind] = weights, sizes
        all_weights[behind:] = 1
        all_weights[:1] = 0
        return Document(ids=ids, weights=all_weights, bytes=all_sizes)


def encode(batch: Sequence["Pieces"], tokenizer: "PreTrainedTokenizerBase") -> list[Document]:
    """A few documents, tokenised here and now."""
    return list(Encoder(tokenizer)(batch))


def _weights(pieces: "Pieces", ends: np.ndarray) -> np.ndarray:
    """(tokens,) float32; ends: (tokens,) bytes covered so far. A token that covers nothing goes with the one before."""
    starts = np.minimum(np.concatenate(([0], ends[:-1])), ends - 1)
    weights = np.zeros(len(ends), dtype=np.float32)
    begin = 0
    for text, weight in pieces:
        end = begin + len(text.encode())
        if weight and end > begin:
            here = slice(np.searchsorted(ends, begin, "right"), np.searchsorted(starts, end, "left"))
            weights[here] = np.maximum(weights[here], weight)
        begin = end
    return weights


def _special_tokens(backend: Tokenizer, eos: int) -> tuple[list[int], list[int]]:
    """What stands before and behind a text: the tokenizer's own special tokens, then end-of-text."""
    probe = backend.encode("a")
    special = probe.special_tokens_mask
    before = special.index(0) if 0 in special else len(special)
    behind = len(special) - special[::-1].index(0) if 0 in special else len(special)
    after = probe.ids[behind:]
    return probe.ids[:before], after if after[-1:] == [eos] else [*after, eos]


def _byte_sizes(state: dict[str, Any], backend: Tokenizer) -> np.ndarray | None:
    """(vocabulary,) bytes that each token of a byte-level vocabulary stands for; None for another kind."""
    if '"ByteLevel"' not in json.dumps([state["pre_tokenizer"], state["decoder"]]):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=False)  # a character for a byte
    sizes = np.zeros(backend.get_vocab_size() + max(vocabulary.values(), default=0) + 1, dtype=np.int32)
    for token, number in vocabulary.items():
        sizes[number] = len(token)
    for number, added in backend.get_added_tokens_decoder().items():
        if number >= len(sizes):
            sizes = np.append(sizes, np.zeros(number + 1 - len(sizes), dtype=np.int32))
        sizes[number] = len(added.content.encode())
    return sizes


def _sizes_by_offsets(text: str, encoding: Any) -> np.ndarray:
    """A character that is split over several tokens is the first one's."""
    ends = np.fromiter(map(itemgetter(1), encoding.offsets), dtype=np.int64, count=len(encoding.ids))
    covered = np.maximum.accumulate(ends)
    covered[-1:] = len(text)  # what the tokenizer dropped at the end counts as covered, so that bytes add up
    return np.diff(_byte_positions(text)[covered], prepend=0)


def _byte_positions(text: str) -> np.ndarray:
    """UTF-8 bytes before each character, and the total: len(text) + 1 numbers."""
    if text.isascii():
        return np.arange(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF).astype(np.int64)
    return np.concatenate(([0], np.cumsum(sizes)))
