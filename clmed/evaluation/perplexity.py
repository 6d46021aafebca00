"""Held-out text as packed rows, and the loss of a live model on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from clmed.config import BenchmarkConfig, SourceConfig
from clmed.data.corpus import Corpus, Rows
from clmed.data.packing import IGNORED
from clmed.data.rows import prepare
from clmed.live import deal, measuring, sum_over_ranks, world
from clmed.shards import computing_device


def heldout_rows(config: BenchmarkConfig, corpus: Corpus, local: Path | None) -> Rows:
    """What the perplexity of `config` is measured on: the held-out part of a source, or all the text of its own path.

    local: the file of that path, None for the hub, where the split is `test` unless the configuration names another.
    """
    assert config.perplexity is not None, "an exam has no text to read"
    if config.path is None:
        return corpus.rows(config.perplexity, "heldout")
    source = SourceConfig(
        path=config.path, format="text", subset=config.subset, split=config.split or "test", heldout=0, fisher=0
    )
    # Nothing of it is kept from the part that is called train.
    return Rows.of(prepare(config.perplexity, source, local, "train", tokenizer=corpus.tokenizer, length=corpus.length))


def perplexity(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], *, batch_tokens: int) -> tuple[float, int]:
    """Total loss in nats and number of supervised tokens over packed rows; perplexity is exp(nats / tokens)."""
    nats, tokens = losses_by_row(model, rows, batch_tokens=batch_tokens).sum(axis=0)
    return float(nats), int(tokens)


def losses_by_row(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], *, batch_tokens: int) -> np.ndarray:
    """(rows, 2) float64: the loss in nats of each row, and its supervised tokens.

    A row holds `input_ids`, `position_ids` (restarting at each document) and unshifted `labels`, all of one length.
    With several ranks each must call with the same rows, and each gets the whole. No attention mask and no cache:
    with either, transformers no longer sees the documents' borders and attention leaks across them.
    """
    found = np.zeros((len(rows), 2))
    if not len(rows):
        return found
    size = max(1, batch_tokens // len(rows[0]["input_ids"]))
    batches = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
    rank, ranks = world()
    with measuring(model):
        for dealt in deal(batches, ranks):
            losses = batch_losses(model, [rows[index] for index in dealt[rank]])
            if rank == 0 or dealt[rank] is not dealt[0]:  # not a repeat
                found[dealt[rank].start : dealt[rank].stop] = losses
    return sum_over_ranks(found, computing_device(model))


def batch_losses(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[nats, supervised tokens] of each of some rows."""
    input_ids, position_ids, labels = (
        torch.from_numpy(np.stack([np.asarray(row[key], dtype=np.int64) for row in rows])).to(computing_device(model))
        for key in ("input_ids", "position_ids", "labels")
    )
    logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    found = []
    for row, label in zip(logits[:, :-1], labels[:, 1:], strict=True):  # one at a time: the fp32 copy stays small
        loss = torch.nn.functional.cross_entropy(row.float(), label, ignore_index=IGNORED, reduction="sum")
        found.append([loss.double().item(), float((label != IGNORED).sum())])
    return np.array(found)
