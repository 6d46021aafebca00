"""Log-likelihoods of continuations on a live causal language model: exact, and each token computed once.

The few-shot prefix of a group is run once and its keys and values are laid before every question of the group; each
question is one row, whose continuations form a tree (see `trees`); rows of similar length fill batches of a token
budget; only the columns that predict get logits. Everything goes through the model's own `forward`, so that FSDP2's
hooks, adapters and what a model does to its logits all apply, and it works on one process or on many ranks.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from clmed.errors import UserError
from clmed.evaluation.encoding import Encoded, Request, encode
from clmed.evaluation.prefix import following, parameters, run_prefix
from clmed.evaluation.trees import Row, grow, lay_out
from clmed.live import deal, log_normalisers, measuring, sum_over_ranks, world
from clmed.shards import computing_device

WORTHWHILE = 0.25
"""A prefix is run apart when that saves this share of a batch: sharded, the extra forward costs as much as a batch."""

CPU_COLUMNS = 1_000
"""On CPU more new tokens in a batch only push each other out of the cache: half the pace at 3,000."""

WINDOWED = {"sliding_attention", "chunked_attention"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows that follow the same prefix (empty: none is shared)."""

    prefix: np.ndarray
    rows: tuple[Row, ...]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    *,
    batch_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """For each request the summed natural-log probabilities of its continuations (float64), log-softmax in fp32.

    With several ranks each must call with the same requests, and each gets all results. The result does not depend on
    `batch_tokens` (tokens of a batch with its copies of the prefix; a longer row is a batch of its own), on the order
    or on the groups. `progress` is told how many more requests are done, after each batch.

    Raises:
        ValueError: an empty text, or more tokens than the model takes (see `encoding.token_counts`).
        UserError: a model whose attention cannot be masked as needed.
    """
    encoded = encode(tokenizer, requests)
    limit = longest(model)
    for index, (request, tokens) in enumerate(zip(requests, encoded, strict=True)):
        if tokens.longest > limit:
            raise ValueError(f"request {index} ({request.group}) has {tokens.longest} tokens; the model takes {limit}")
    groups = [request.group for request in requests]
    return [found for (found,) in score_tokens(model, groups, encoded, batch_tokens=batch_tokens, progress=progress)]


def score_tokens(
    model: PreTrainedModel,
    groups: Sequence[str],
    encoded: Sequence[Encoded],
    *,
    batch_tokens: int,
    misses: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """`score` for requests that are tokens already, none longer than the model's positions but for its last token.

    For each an array (1, continuations); with `misses` a second row says how many tokens of the continuation are not
    the most probable ones at their places.
    """
    check(model)
    starts = np.concatenate([[0], np.cumsum([len(tokens.continuations) for tokens in encoded])]).astype(np.int64)
    totals = np.zeros((1 + misses, starts[-1]))
    rank, size = world()
    cache: Cache | None = None
    columns = min(batch_tokens, CPU_COLUMNS) if computing_device(model).type == "cpu" else batch_tokens
    with measuring(model):
        for dealt, wanted in rounds(plan(groups, encoded, batch_tokens, columns), size):
            if any(wanted):
                # A rank that holds its prefix joins with one token.
                fresh = run_prefix(model, dealt[rank].prefix if wanted[rank] else np.zeros(1, dtype=np.int64))
                cache = fresh if wanted[rank] else cache
            batch = dealt[rank]
            values = run_rows(model, batch, cache if len(batch.prefix) else None, misses)
            if rank == 0 or batch is not dealt[0]:  # not a repeat
                for row, value in zip(batch.rows, values, strict=True):
                    totals[:, starts[row.index] : starts[row.index + 1]] = value
            if progress:
                progress(sum(len(batch.rows) for batch in {id(batch): batch for batch in dealt}.values()))
    totals = sum_over_ranks(totals, computing_device(model))
    return np.split(totals, starts[1:-1], axis=1) if encoded else []


def longest(model: PreTrainedModel) -> int:
    """The most tokens a request may have: the model's positions, or its attention window if that is shorter."""
    config = model.config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None)]
    if WINDOWED & set(getattr(config, "layer_types", None) or WINDOWED):
        limits += [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    return min((limit for limit in limits if limit), default=sys.maxsize)


def check(model: PreTrainedModel) -> None:
    """Refuse what would silently ignore the mask or the positions of a tree. Raises UserError."""
    config = model.config.get_text_config()
    why = ""
    if others := set(getattr(config, "layer_types", None) or ()) - WINDOWED - {"full_attention"}:
        why = f"attention in every layer, and this one has {', '.join(sorted(others))}"
    elif "position_ids" not in parameters(model) or getattr(config, "alibi", False):
        why = "position_ids, which this one does not take"
    elif config._attn_implementation not in ("sdpa", "eager"):
        why = f"sdpa or eager attention, and this one has {config._attn_implementation}"
    if why:
        raise UserError(f"{type(model).__name__} cannot be measured: scoring needs a model with {why}.")


def plan(groups: Sequence[str], encoded: Sequence[Encoded], batch_tokens: int, columns: int) -> list[Batch]:
    """All requests in batches, longest first within a prefix; the same on every rank.

    A batch has at most `batch_tokens` tokens with its copies of the prefix, and `columns` without them.
    """
    by_group: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        by_group[group].append(index)
    trees = {continuations: grow(continuations) for continuations in {tokens.continuations for tokens in encoded}}
    alone: list[Row] = []
    batches: list[Batch] = []
    for members in by_group.values():
        prefix = shared_prefix([encoded[index].context for index in members])
        if (len(members) - 1) * len(prefix) < WORTHWHILE * columns:
            prefix = prefix[:0]
        rows = [
            Row(index=i, suffix=encoded[i].context[len(prefix) :], tree=trees[encoded[i].continuations])
            for i in members
        ]
        if len(prefix):
            batches += fill(prefix, rows, batch_tokens, columns)
        else:
            alone += rows
    return batches + fill(np.zeros(0, dtype=np.int64), alone, batch_tokens, columns)


def shared_prefix(contexts: Sequence[np.ndarray]) -> np.ndarray:
    """The longest common prefix that leaves every context at least one token."""
    prefix = contexts[0][: min(map(len, contexts)) - 1]
    for context in contexts[1:]:
        different = np.flatnonzero(context[: len(prefix)] != prefix)
        if len(different):
            prefix = prefix[: different[0]]
    return prefix


def fill(prefix: np.ndarray, rows: Sequence[Row], batch_tokens: int, columns: int) -> list[Batch]:
    """Batches of similar rows whose padded tokens keep within the budgets."""
    batches: list[Batch] = []
    taken: list[Row] = []
    suffix = tree = 0
    for row in sorted(rows, key=lambda row: (row.length, len(row.suffix)), reverse=True):
        suffix, tree = max(suffix, len(row.suffix)), max(tree, len(row.tree.tokens))
        width, rows_now = suffix + tree, len(taken) + 1
        if taken and (rows_now * width > columns or rows_now * (len(prefix) + width) > batch_tokens):
            batches.append(Batch(prefix=prefix, rows=tuple(taken)))
            taken, suffix, tree = [], len(row.suffix), len(row.tree.tokens)
        taken.append(row)
    return [*batches, Batch(prefix=prefix, rows=tuple(taken))] if taken else batches


def rounds(batches: Sequence[Batch], size: int) -> Iterator[tuple[list[Batch], list[bool]]]:
    """Each round's batches, one for each of `size` ranks, and which ranks do not hold their batch's prefix yet."""
    held: list[np.ndarray | None] = [None] * size
    for dealt in deal(batches, size):
        wanted = [len(batch.prefix) > 0 and batch.prefix is not had for batch, had in zip(dealt, held, strict=True)]
        held = [batch.prefix if want else had for batch, want, had in zip(dealt, wanted, held, strict=True)]
        yield dealt, wanted


def run_rows(model: PreTrainedModel, batch: Batch, cache: Cache | None, misses: bool) -> list[np.ndarray]:
    """The scores of each row's continuations, and with `misses` their tokens that are not the most probable."""
    layout = lay_out(batch.rows, len(batch.prefix), computing_device(model), model.dtype)
    with following(model, layout.mask, cache) as arguments:
        logits = model(
            input_ids=layout.input_ids,
            position_ids=layout.position_ids,
            logits_to_keep=layout.predicting,
            **arguments,
        ).logits
    trees = [row.tree for row in batch.rows]
    rows = torch.from_numpy(np.repeat(np.arange(len(trees)), [len(tree.targets) for tree in trees])).to(logits.device)
    sources = torch.from_numpy(np.concatenate([tree.sources for tree in trees])).to(logits.device)
    targets = torch.from_numpy(np.concatenate([tree.targets for tree in trees])).to(logits.device)
    values = [logits[rows, sources, targets].float() - log_normalisers(logits)[rows, sources]]
    if misses:
        values.append((logits.argmax(-1)[rows, sources] != targets).float())
    ends = np.cumsum([len(tree.targets) for tree in trees])[:-1]
    parts = np.split(torch.stack(values).cpu().double().numpy(), ends, axis=1)
    return [
        np.stack([np.bincount(tree.owners, weights=line, minlength=tree.continuations) for line in part])
        for tree, part in zip(trees, parts, strict=True)
    ]
