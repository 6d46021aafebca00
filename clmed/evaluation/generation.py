"""Greedy continuations of many prompts on a live model, alone or on many ranks.

Prompts of similar length share a batch, padded on the left; keys and values are kept; a batch ends when each of its
rows has ended its text or said a stop text. Sharded forwards are collective: a round of batches goes on until all ranks
are done, so every rank makes the same number of forwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from clmed.evaluation.prefix import cached
from clmed.live import deal, gathered, measuring, world
from clmed.shards import computing_device

TAIL = 16
"""A stop text is looked for in so many last tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A prompt's place among the others and its tokens."""

    index: int
    tokens: list[int]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    most: int,
    stops: Sequence[str] = (),
    batch_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """The most probable next token, again and again: at most `most` tokens after each prompt.

    A text ends before the first of `stops` in it, at the end-of-text token, or where the model has no more positions
    (a prompt that leaves none has an empty one). `batch_tokens`: tokens of a batch with all that is generated. With
    several ranks each must call with the same prompts, and each gets all texts.
    """
    tokens = prompt_tokens(tokenizer, prompts)
    return go_on(model, tokenizer, tokens, most=most, stops=stops, batch_tokens=batch_tokens, progress=progress)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """With the tokeniser's default special tokens, but without a closing end-of-text token."""
    closed = tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]
    return [tokens[:-1] if closed else tokens for tokens in (tokenizer(list(prompts))["input_ids"] if prompts else [])]


def go_on(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    most: int,
    stops: Sequence[str],
    batch_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """`generate` for prompts that are tokens already."""
    limit = model.config.get_text_config().max_position_embeddings
    asked = [Asked(index=index, tokens=tokens) for index, tokens in enumerate(prompts)]
    texts = [""] * len(prompts)
    rank, size = world()
    with measuring(model):
        for dealt in deal(_batches([a for a in asked if len(a.tokens) < limit], most, batch_tokens), size):
            room = [min(most, limit - len(one.tokens)) for one in dealt[rank]]
            found = _continue(model, tokenizer, dealt[rank], room, stops)
            for batch, said in zip(dealt, gathered(found), strict=True):
                for one, text in zip(batch, said, strict=True):
                    texts[one.index] = text
            if progress:
                progress(sum(len(batch) for batch in {id(batch): batch for batch in dealt}.values()))
    return texts


def _batches(asked: Sequence[Asked], most: int, batch_tokens: int) -> list[list[Asked]]:
    """The longest first, so that a batch's first prompt is its longest."""
    batches: list[list[Asked]] = []
    for one in sorted(asked, key=lambda one: -len(one.tokens)):
        if not batches or (len(batches[-1]) + 1) * (len(batches[-1][0].tokens) + most) > batch_tokens:
            batches.append([])
        batches[-1].append(one)
    return batches


def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Asked],
    room: Sequence[int],
    stops: Sequence[str],
) -> list[str]:
    """The texts after the prompts of a batch, each of at most `room` tokens."""
    device, width = computing_device(model), len(batch[0].tokens)
    lengths = torch.tensor([len(one.tokens) for one in batch], device=device)
    ids = torch.zeros((len(batch), width), dtype=torch.long)
    for row, one in enumerate(batch):
        ids[row, width - len(one.tokens) :] = torch.tensor(one.tokens)
    mask = (torch.arange(width, device=device) >= (width - lengths)[:, None]).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache, ids = DynamicCache(config=model.config), ids.to(device)
    said: list[list[int]] = [[] for _ in batch]
    ended = np.zeros(len(batch), dtype=bool)
    # A rank whose rows are done, and a row that is done, go on with the others; nothing more is kept.
    while _any_rank(not ended.all(), device):
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **cached(model, cache)
        ).logits
        chosen = logits[:, -1].float().argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if not ended[row]:
                ended[row] = token == tokenizer.eos_token_id
                if not ended[row]:
                    said[row].append(token)
                    full = len(said[row]) == room[row]
                    ended[row] = full or _stopped(str(tokenizer.decode(said[row][-TAIL:])), stops)
        ids = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = (positions[:, -1:] + 1).clamp(max=model.config.get_text_config().max_position_embeddings - 1)
    return [_cut(str(tokenizer.decode(tokens, skip_special_tokens=True)), stops) for tokens in said]


def _any_rank(value: bool, device: torch.device) -> bool:
    if world()[1] == 1:
        return value
    flag = torch.tensor(float(value), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _stopped(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
