"""A prefix computed once and seen by every row of many batches.

Its keys and values are laid before each row's own by the cache (`SharedLayer`), one layer at a time. On CPU even these
copies are spared: all rows attend to the one prefix as if they were a single row of many queries, then each to its own
tokens, and the two results are weighted by their shares of the softmax (as FlashAttention does with its blocks, Dao et
al. 2022; across rows with a shared prefix, Juravsky et al. 2024). For questions after five shots that halves the time
of attention.
"""

import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from clmed.shards import computing_device

NAME = "clmed_shared_prefix"


class SharedLayer(DynamicLayer):
    """One layer's keys and values of a prefix (1, heads, tokens, width). Nothing is kept of the rows that follow it."""

    waiting: "SharedLayer | None" = None
    """The layer whose prefix the next attention must add: `update` and the attention follow each other in a layer."""
    apart = False

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the rows attend to: the prefix and their own, or, where attention adds the prefix, only their own."""
        if not SharedLayer.apart:
            return self.before(key_states, value_states)
        if SharedLayer.waiting is not None:
            raise ValueError("scoring needs a model whose attention goes through transformers' AttentionInterface")
        SharedLayer.waiting = self
        return key_states, value_states

    def before(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix before every row of (rows, heads, columns, width)."""
        prefix = (part.expand(len(keys), -1, -1, -1) for part in (self.keys, self.values))
        first, second = (torch.cat([part, own], dim=-2) for part, own in zip(prefix, (keys, values), strict=True))
        return first, second


def run_prefix(model: PreTrainedModel, tokens: np.ndarray) -> Cache:
    """The keys and values of some tokens."""
    # Without the config every layer keeps all keys: `longest` sees to it that no window is exceeded.
    cache = DynamicCache()
    ids = torch.from_numpy(tokens)[None].to(computing_device(model))
    model(input_ids=ids, logits_to_keep=1, **cached(model, cache))
    return Cache(layers=[SharedLayer(keys, values) for keys, values, _ in cache])


def parameters(model: PreTrainedModel) -> Collection[str]:
    """The names of what `forward` takes (an adapter's hides those of the model in it)."""
    inner = getattr(model, "get_base_model", lambda: model)()
    return inspect.signature(type(inner).forward).parameters


def cached(model: PreTrainedModel, cache: Cache) -> dict[str, Any]:
    """The arguments that take keys and values: since transformers 5.24 most models call them `cache`."""
    return {"cache" if "cache" in parameters(model) else "past_key_values": cache, "use_cache": True}


@contextmanager
def following(model: PreTrainedModel, mask: torch.Tensor, cache: Cache | None) -> Iterator[dict[str, Any]]:
    """The arguments of a forward pass of rows that follow the prefix in `cache` and see each other as `mask` says.

    mask: (rows, 1, columns, columns).
    """
    if cache is None:
        yield {"attention_mask": mask, "use_cache": False}
        return
    config = model.config.get_text_config()
    found = config._attn_implementation
    if computing_device(model).type != "cpu" or found != "sdpa":
        yield {"attention_mask": pad(mask, (cache.get_seq_length(), 0)), **cached(model, cache)}
        return
    config._attn_implementation, SharedLayer.apart = NAME, True
    try:
        yield {"attention_mask": mask, **cached(model, cache)}
    finally:
        config._attn_implementation, SharedLayer.apart, SharedLayer.waiting = found, False, None


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of rows to the waiting prefix and to their own tokens.

    query (rows, heads, columns, width), key and value (rows, key-value heads, columns, width) ->
    (rows, columns, heads, width).
    """
    prefix, SharedLayer.waiting = SharedLayer.waiting, None
    assert prefix is not None, "the cache's update comes before the attention"
    unlike = {tensor.dtype for tensor in (query, key, value, prefix.keys, prefix.values)}, key.shape != value.shape
    if len(unlike[0]) > 1 or unlike[1] or kwargs.get("position_bias") is not None:  # autocast; other attentions
        keys, values = prefix.before(key, value)
        mask = pad(attention_mask, (prefix.keys.shape[-2], 0))
        return sdpa_attention_forward(module, query, keys, values, mask, scaling=scaling, **kwargs)
    rows, heads, columns, width = query.shape
    groups = heads // key.shape[1]
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    # All rows, and the heads that share keys, become queries of one row: (1, key-value heads, queries, width).
    flat = query.unflatten(1, (-1, groups)).permute(1, 2, 0, 3, 4).reshape(1, -1, groups * rows * columns, width)
    far, far_weight = flash(flat, prefix.keys, prefix.values, scale=scaling)
    far, far_weight = (
        part.unflatten(2, (groups, rows, columns)).squeeze(0).movedim(2, 0).flatten(1, 2) for part in (far, far_weight)
    )
    key, value = (part.repeat_interleave(groups, dim=1) if groups > 1 else part for part in (key, value))
    near, near_weight = flash(query, key, value, attn_mask=attention_mask, scale=scaling)
    share = torch.sigmoid(near_weight - far_weight).to(near.dtype)
    return torch.lerp(far, near, share[..., None]).transpose(1, 2), None


AttentionInterface.register(NAME, attend)
