"""Requests as tokens: exactly as if each context + continuation were tokenised whole, but without the repeated work.

The few-shot texts of a subject share most of their characters, and the continuations of a question share nearly all.
So a text is cut in three at starts of lines: what all contexts of the group share, the question, and the last line
with a continuation; every different piece is tokenised once. This is exact where a cut is *safe*: the character before
is a newline, the one after is not white space, and no token of the vocabulary holds such a pair. Then no token spans
the cut, in BPE, unigram and WordPiece models alike, and tokenisers that first split by a regular expression, scanning
from the left, split there too. Each piece is tokenised between its two neighbouring characters, because such
expressions look one character ahead (`\\s+(?!\\S)`) and others treat the start of a text in their own way. What
tokenisers do besides (normalisation) is checked on a sample of whole texts: if any differs, all are tokenised whole.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizerBase

SAMPLE = 64
"""One request in so many is checked against the tokens of its whole text."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question: how probable is each continuation after the context?

    Requests of the same `group` are expected to begin alike (the few-shot prefix of a subject), and what all of them
    share is computed once: questions with fewer shots than the others deserve a group of their own.
    """

    group: str
    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """A request's tokens: at least one of context, at least one for each continuation."""

    context: np.ndarray
    continuations: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Tokens of the context with its longest continuation."""
        return len(self.context) + max(len(tokens) for tokens in self.continuations)


class Piece(NamedTuple):
    """A part of a text; `first` when it begins the text, `following` is the character after it ("" at the end)."""

    text: str
    first: bool
    following: str = ""


Pieces = tuple[tuple[Piece, ...], tuple[Piece, ...]]
"""A request in pieces: those of its context but the last, and the alternatives for the last one: alone, then with
each continuation."""


def token_counts(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request]) -> list[int]:
    """Tokens of each request with its longest continuation: what must not exceed `scoring.longest(model)`."""
    return [encoded.longest for encoded in encode(tokenizer, requests)]


def encode(tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request]) -> list[Encoded]:
    """Tokenise requests, with the tokeniser's default special tokens but without a closing end-of-text token.

    The context's tokens are the longest prefix that the tokens of the context alone and of context + continuation share
    for all continuations: where a merge crosses the border, the border moves to the left of it.

    Raises:
        ValueError: an empty context or continuation, or no token left for the context.
    """
    for index, request in enumerate(requests):
        if not request.context or not request.continuations or not all(request.continuations):
            raise ValueError(f"request {index} ({request.group}): the context and the continuations must not be empty")
    if breaks_at_lines(tokenizer):
        pieces = split(requests)
        tokens = tokenise(tokenizer, (piece for parts in pieces for piece in chain(*parts)))
        if tokens is not None and agrees(tokenizer, requests, pieces, tokens):
            return [join(index, parts, tokens) for index, parts in enumerate(pieces)]
    pieces = [((), endings(request, 0)) for request in requests]
    tokens = tokenise(tokenizer, (piece for parts in pieces for piece in chain(*parts)))
    assert tokens is not None, "a whole text has no cuts"
    return [join(index, parts, tokens) for index, parts in enumerate(pieces)]


def breaks_at_lines(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether no token holds a newline followed by something else than white space (Ċ: a newline in byte-level BPE)."""
    if not tokenizer.is_fast:
        return False
    newlines = (i for token, i in tokenizer.get_vocab().items() if "\n" in token or "Ċ" in token)
    return not any(re.search(r"\n\S", str(tokenizer.decode([i]))) for i in newlines)


def split(requests: Sequence[Request]) -> list[Pieces]:
    """Cut each request at the last line start that its whole group shares, and at the last one of its context."""
    groups: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        groups[request.group].append(request.context)
    shared = {group: last_cut(contexts[0], shared_length(contexts)) for group, contexts in groups.items()}
    return [cut(request, shared[request.group]) for request in requests]


def shared_length(sequences: Sequence[str] | Sequence[list[int]]) -> int:
    """The length of the longest common prefix: that of the two that are farthest apart in the lexical order."""
    low, high = min(sequences), max(sequences)
    pairs = enumerate(zip(low, high, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(low), len(high)))


def last_cut(text: str, end: int) -> int:
    """The last place before `end` that follows a newline and does not precede white space; 0 where there is none."""
    while (place := text.rfind("\n", 0, max(end - 1, 0)) + 1) and text[place].isspace():
        end = place
    return place


def cut(request: Request, shared: int) -> Pieces:
    context = request.context
    last = max(shared, last_cut(context, len(context)))
    ends = [place for place in sorted({shared, last}) if place]
    starts = [0, *ends[:-1]]
    head = tuple(Piece(context[start:end], start == 0, context[end]) for start, end in zip(starts, ends, strict=False))
    return head, endings(request, last)


def endings(request: Request, start: int) -> tuple[Piece, ...]:
    rest = request.context[start:]
    return tuple(Piece(rest + end, start == 0) for end in ("", *request.continuations))


def tokenise(tokenizer: PreTrainedTokenizerBase, pieces: Iterable[Piece]) -> dict[Piece, np.ndarray] | None:
    """The tokens of each different piece, or None if a token crosses the border of one."""
    different = dict.fromkeys(pieces)
    closed = tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]
    tokens: dict[Piece, np.ndarray] = {}
    for first in (True, False):
        chosen = [piece for piece in different if piece.first == first]
        if not chosen:
            continue
        before = "" if first else "\n"
        texts = [before + piece.text + piece.following for piece in chosen]
        batch = tokenizer(texts, add_special_tokens=first, return_attention_mask=False, verbose=False)
        for index, (piece, ids) in enumerate(zip(chosen, batch["input_ids"], strict=True)):
            start = token_at(batch, index, len(before)) if before and piece.text else 0
            end = len(ids) - int(first and closed)
            if piece.following:
                end = token_at(batch, index, len(before) + len(piece.text))
            if start < 0 or end < 0:
                return None
            tokens[piece] = np.array(ids[start:end], dtype=np.int64)
    return tokens


def token_at(batch: BatchEncoding, index: int, place: int) -> int:
    """The token of text `index` that begins at character `place`; -1 if none begins there."""
    token = batch.char_to_token(index, place)
    span = None if token is None else batch.token_to_chars(index, token)
    return token if token is not None and span is not None and span.start == place else -1


def agrees(
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    pieces: Sequence[Pieces],
    tokens: Mapping[Piece, np.ndarray],
) -> bool:
    """Whether a sample of the requests, at least one from each group, has the tokens of its whole text."""
    groups = {request.group: index for index, request in enumerate(requests)}
    sample = sorted({*groups.values(), *range(0, len(requests), SAMPLE)})
    texts = [requests[index].context + requests[index].continuations[-1] for index in sample]
    whole = tokenise(tokenizer, (Piece(text, True) for text in texts))
    assert whole is not None, "a whole text has no cuts"
    for index, text in zip(sample, texts, strict=True):
        head, tails = pieces[index]
        if not np.array_equal(
            np.concatenate([tokens[piece] for piece in (*head, tails[-1])]), whole[Piece(text, True)]
        ):
            return False
    return True


def join(index: int, pieces: Pieces, tokens: Mapping[Piece, np.ndarray]) -> Encoded:
    head, tails = pieces
    ends = [tokens[tail].tolist() for tail in tails]
    shared = min(shared_length(ends), min(map(len, ends[1:])) - 1)
    context = np.concatenate([*(tokens[piece] for piece in head), tokens[tails[0]][:shared]])
    if shared < 0 or not len(context):
        raise ValueError(f"request {index}: no token is left for the context; begin it with a line of its own")
    return Encoded(context=context, continuations=tuple(tuple(end[shared:]) for end in ends[1:]))
