"""How well the model that a run starts with knows the text of each source, found before anything is trained on.

Of every source that the run reads, its held-out part where that is measured and else what is trained on:

    tokens, bytes    of the whole part: their ratio is how much text the tokenizer says with a token
    scripts          shares of its letters by the first word of their Unicode names (CJK, LATIN, CYRILLIC, ...)
    context_free     nats a token if its tokens came in random order (the entropy of their frequencies): what a model
                     pays that knows the source's words and nothing of how they follow each other
    nats, supervised of each row of a small sample: the model's loss and the tokens that it is summed over

A few forward passes: ROWS rows a source. The weights, the modes and the random numbers stay as they are.
"""

import unicodedata
from collections import Counter
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from clmed.data.corpus import Corpus, Rows, reservoir
from clmed.evaluation.perplexity import losses_by_row

ROWS = 16
COUNTED = 1000  # rows whose tokens are counted


def familiarity(model: PreTrainedModel, corpus: Corpus, *, batch_tokens: int) -> dict[str, dict[str, Any]]:
    """By source; the same on every rank, and every rank must ask."""
    return {name: _source(name, rows, model, corpus, batch_tokens) for name, rows in corpus.in_use().items()}


def _source(name: str, rows: Rows, model: PreTrainedModel, corpus: Corpus, batch_tokens: int) -> dict[str, Any]:
    sample = reservoir({name: rows}, ROWS, seed=0).data
    counted = reservoir({name: rows}, COUNTED, seed=0)
    losses = losses_by_row(model, sample, batch_tokens=batch_tokens)
    return {
        "tokens": int(rows.tokens.sum(dtype=np.int64)),
        "bytes": int(rows.bytes.sum(dtype=np.int64)),
        "scripts": scripts("".join(corpus.tokenizer.batch_decode(sample["input_ids"][:], skip_special_tokens=True))),
        "context_free": context_free(counted),
        "nats": losses[:, 0].tolist(),
        "supervised": losses[:, 1].astype(int).tolist(),
    }


def context_free(rows: Rows) -> float:
    """The entropy of the tokens' frequencies, in nats."""
    ids = [row[:length] for row, length in zip(rows.data["input_ids"][:], rows.tokens, strict=True)]
    shares = np.bincount(np.concatenate(ids)) / sum(map(len, ids))
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def scripts(text: str) -> dict[str, float]:
    """The shares of the scripts among the letters of a text, the largest first; empty without a letter."""
    found = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    return {script: number / found.total() for script, number in found.most_common()}
