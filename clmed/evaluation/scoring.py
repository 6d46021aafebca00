"""Log-likelihoods of continuations on a live causal language model: exact, and each token computed once.

The few-shot prefix of a group is run once and its keys and values are laid before every question of the group; each
question is one row, whose continuations form a tree (see `trees`); rows of similar length fill batches of a token
budget; only the columns that predict get logits. Everything goes through the model's own `forward`, so that FSDP2's
hooks, adapters and what a model does to its logits all apply, and it works on one process or on many ranks.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from clmed.evaluation.encoding import Encoded, Request, encode
from clmed.evaluation.live import deal, log_normalisers, measuring, sum_over_ranks, world
from clmed.evaluation.trees import Row, grow, lay_out
from clmed.shards import computing_device

WORTHWHILE = 0.25
"""A prefix is run apart when that saves this share of a batch: sharded, the extra forward costs as much as a batch."""

WINDOWED = {"sliding_attention", "chunked_attention"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows that follow the same prefix (empty: none is shared)."""

    prefix: np.ndarray
    rows: tuple[Row, ...]


class SharedLayer(DynamicLayer):
    """One layer's keys and values of a prefix (1, heads, tokens, width), laid before every row of any batch.

    Nothing is kept of the rows, so that the copies of the prefix exist for one layer at a time.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self.prefix = (keys, values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (part.expand(len(key_states), -1, -1, -1) for part in self.prefix)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


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
        ValueError: an empty text, more tokens than the model takes (see `encoding.token_counts`), or a model whose
            attention cannot be masked as needed.
    """
    check(model)
    encoded = encode(tokenizer, requests)
    limit = longest(model)
    for index, (request, tokens) in enumerate(zip(requests, encoded, strict=True)):
        if tokens.longest > limit:
            raise ValueError(f"request {index} ({request.group}) has {tokens.longest} tokens; the model takes {limit}")
    starts = np.concatenate([[0], np.cumsum([len(request.continuations) for request in requests])]).astype(np.int64)
    totals = np.zeros(starts[-1])
    rank, size = world()
    cache: Cache | None = None
    with measuring(model):
        for dealt, wanted in rounds(plan(requests, encoded, batch_tokens), size):
            if any(wanted):
                # A rank that holds its prefix joins with one token.
                fresh = run_prefix(model, dealt[rank].prefix if wanted[rank] else np.zeros(1, dtype=np.int64))
                cache = fresh if wanted[rank] else cache
            batch = dealt[rank]
            values = run_rows(model, batch, cache if len(batch.prefix) else None)
            if rank == 0 or batch is not dealt[0]:  # not a repeat
                for row, value in zip(batch.rows, values, strict=True):
                    totals[starts[row.index] : starts[row.index + 1]] = value
            if progress:
                progress(sum(len(batch.rows) for batch in {id(batch): batch for batch in dealt}.values()))
    totals = sum_over_ranks(totals, computing_device(model))
    return np.split(totals, starts[1:-1]) if requests else []


def longest(model: PreTrainedModel) -> int:
    """The most tokens a request may have: the model's positions, or its attention window if that is shorter."""
    config = model.config.get_text_config()
    limits = [config.max_position_embeddings]
    if WINDOWED & set(getattr(config, "layer_types", None) or WINDOWED):
        limits += [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    return min(limit for limit in limits if limit)


def check(model: PreTrainedModel) -> None:
    """Refuse what would silently ignore the mask or the positions of a tree."""
    config = model.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(f"scoring needs sdpa or eager attention, the model has {config._attn_implementation}")
    if others := set(getattr(config, "layer_types", None) or ()) - WINDOWED - {"full_attention"}:
        raise ValueError(f"scoring needs attention in every layer, the model has {', '.join(sorted(others))}")
    if "position_ids" not in parameters(model) or getattr(config, "alibi", False):
        raise ValueError("scoring needs a model that takes position_ids")


def parameters(model: PreTrainedModel) -> Collection[str]:
    """The names of what `forward` takes (an adapter's hides those of the model in it)."""
    inner = getattr(model, "get_base_model", lambda: model)()
    return inspect.signature(type(inner).forward).parameters


def cached(model: PreTrainedModel, cache: Cache | None) -> dict[str, Cache | None]:
    """The argument that takes keys and values: since transformers 5.24 most models call it `cache`."""
    return {"cache" if "cache" in parameters(model) else "past_key_values": cache}


def plan(requests: Sequence[Request], encoded: Sequence[Encoded], batch_tokens: int) -> list[Batch]:
    """All requests in batches, longest first within a prefix; the same on every rank."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, request in enumerate(requests):
        groups[request.group].append(index)
    trees = {continuations: grow(continuations) for continuations in {tokens.continuations for tokens in encoded}}
    alone: list[Row] = []
    batches: list[Batch] = []
    for members in groups.values():
        prefix = shared_prefix([encoded[index].context for index in members])
        if (len(members) - 1) * len(prefix) < WORTHWHILE * batch_tokens:
            prefix = prefix[:0]
        rows = [
            Row(index=i, suffix=encoded[i].context[len(prefix) :], tree=trees[encoded[i].continuations])
            for i in members
        ]
        if len(prefix):
            batches += fill(prefix, rows, batch_tokens)
        else:
            alone += rows
    return batches + fill(np.zeros(0, dtype=np.int64), alone, batch_tokens)


def shared_prefix(contexts: Sequence[np.ndarray]) -> np.ndarray:
    """The longest common prefix that leaves every context at least one token."""
    prefix = contexts[0][: min(map(len, contexts)) - 1]
    for context in contexts[1:]:
        different = np.flatnonzero(context[: len(prefix)] != prefix)
        if len(different):
            prefix = prefix[: different[0]]
    return prefix


def fill(prefix: np.ndarray, rows: Sequence[Row], batch_tokens: int) -> list[Batch]:
    """Batches of similar rows whose padded tokens, copies of the prefix included, keep within the budget."""
    batches: list[Batch] = []
    taken: list[Row] = []
    suffix = tree = 0
    for row in sorted(rows, key=lambda row: (row.length, len(row.suffix)), reverse=True):
        suffix, tree = max(suffix, len(row.suffix)), max(tree, len(row.tree.tokens))
        if taken and (len(taken) + 1) * (len(prefix) + suffix + tree) > batch_tokens:
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


def run_prefix(model: PreTrainedModel, prefix: np.ndarray) -> Cache:
    # Without the config every layer keeps all keys: `longest` sees to it that no window is exceeded.
    cache = DynamicCache()
    tokens = torch.from_numpy(prefix)[None].to(computing_device(model))
    model(input_ids=tokens, use_cache=True, logits_to_keep=1, **cached(model, cache))
    return Cache(layers=[SharedLayer(keys, values) for keys, values, _ in cache])


def run_rows(model: PreTrainedModel, batch: Batch, cache: Cache | None) -> list[np.ndarray]:
    """The scores of each row's continuations."""
    layout = lay_out(batch.rows, len(batch.prefix), computing_device(model), model.dtype)
    logits = model(
        input_ids=layout.input_ids,
        attention_mask=layout.mask,
        position_ids=layout.position_ids,
        use_cache=cache is not None,
        logits_to_keep=layout.predicting,
        **cached(model, cache),
    ).logits
    trees = [row.tree for row in batch.rows]
    rows = torch.from_numpy(np.repeat(np.arange(len(trees)), [len(tree.targets) for tree in trees])).to(logits.device)
    sources = torch.from_numpy(np.concatenate([tree.sources for tree in trees])).to(logits.device)
    targets = torch.from_numpy(np.concatenate([tree.targets for tree in trees])).to(logits.device)
    scored = logits[rows, sources, targets].float() - log_normalisers(logits)[rows, sources]
    ends = np.cumsum([len(tree.targets) for tree in trees])[:-1]
    return [
        np.bincount(tree.owners, weights=part, minlength=tree.continuations)
        for tree, part in zip(trees, np.split(scored.cpu().double().numpy(), ends), strict=True)
    ]
