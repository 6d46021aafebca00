"""Text that a model writes itself, to be rehearsed later: sampled on the live model, chosen for variety, kept.

Texts are written in batches whose prompts and random numbers depend on the batch's number alone, and the ranks share
the batches: the text is the same for any number of ranks.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import fingerprint
from clmed.data.cache import build_once, cache_dir
from clmed.data.corpus import Rows
from clmed.data.packing import pack
from clmed.data.progress import followed
from clmed.data.tokenising import Document, Encoder
from clmed.errors import UserError
from clmed.live import deal, gathered, measuring, world
from clmed.shards import computing_device, digest

SHOTS = 2  # documents that a prompt shows
BATCH = 16  # texts written together
SURPLUS = 2  # times as many tokens are written as are kept, and more while too many texts are the same
TRIES = 20  # times as many batches are written, at most, as would do if no text ended before its time


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is written: texts of `tokens` tokens together, after prompts of `shots` (token ids of documents) or without
    any, each next token drawn at `temperature` from the most probable ones of together `top_p`; clusters: see `varied`.
    """

    tokens: int
    shots: Sequence[Sequence[int]]
    top_p: float
    temperature: float
    clusters: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """The chosen texts, and how many positions the model ran forward to write all of them."""

    texts: list[str]
    positions: int


def written(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, most: int) -> Written:
    """The texts of a model by a recipe, of at most `most` tokens each: written now or, by the same weights, before.

    All ranks must call this, and all get the same. Raises UserError where the model writes next to nothing, or no
    document is short enough to be shown.
    """
    positions = model.config.get_text_config().max_position_embeddings
    most = min(most, positions // 2)
    shots = [shot for shot in recipe.shots if len(shot) <= (positions - most) // SHOTS - 1]
    if recipe.shots and not shots:
        raise UserError(f"Among the documents to be shown none is so short that {SHOTS} fit the model's context.")
    settings = [SHOTS, BATCH, SURPLUS, most, asdict(recipe)]
    key = fingerprint(
        [gathered(digest(model)), str(model.config.to_dict()), tokenizer.backend_tokenizer.to_str(), settings]
    )
    folder, first = cache_dir() / "synthesis" / key, world()[0] == 0
    known: Written | None = gathered(_read(folder) if first and folder.is_dir() else None)[0]
    if known is None:
        every, took = _write(model, tokenizer, recipe, shots, most)
        known = Written(texts=gathered(varied(every, tokenizer, recipe) if first else [])[0], positions=took)
        if first:
            _keep(folder, known)
    return known


def packed(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, rows: int) -> Rows:
    """The first `rows` rows of `length` tokens that the texts fill."""
    from datasets import Dataset

    stream = pack(_documents(texts, tokenizer), length, int(tokenizer.eos_token_id), split=True)
    made = [row for row, _ in zip(stream, range(rows), strict=False)]
    columns = {name: [getattr(row, name) for row in made] for name in vars(made[0])}
    return Rows.of(Dataset.from_dict(columns).with_format("numpy"))


def blank(tokenizer: PreTrainedTokenizerBase, length: int, rows: int) -> Rows:
    """Full rows that stand for those not written yet."""
    return packed(["\n"] * length, tokenizer, length, 1).select(np.zeros(rows, dtype=np.int64))


def whole_documents(rows: Rows) -> list[list[int]]:
    """The token ids of the documents in packed rows, but for those of which a row holds the beginning or the end."""
    found = []
    for row, tokens in zip(rows.data, rows.tokens.tolist(), strict=True):
        starts = np.flatnonzero(row["position_ids"][:tokens] == 0)
        parts = np.split(row["input_ids"][:tokens], starts[1:])
        found += [part.tolist() for part in parts[1:-1]]
    return found


def varied(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[str]:
    """Of different texts as many as make `recipe.tokens` tokens: of each cluster in turn the one nearest to its centre.

    Clusters are those of k-means on the TF-IDF of pieces of one to three characters, which suits any language.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    every = list(dict.fromkeys(text for text in texts if text.strip()))
    lengths = [len(document) for document in _documents(every, tokenizer)]
    if sum(lengths) < recipe.tokens:
        raise UserError(
            f"The model wrote {len(every):,} different texts of together {sum(lengths):,} tokens, but "
            f"{recipe.tokens:,} are to be rehearsed: ask for fewer rows, or for a higher temperature or top_p."
        )
    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), max_features=20_000).fit_transform(every)
    means = KMeans(min(recipe.clusters, len(every)), n_init=1, random_state=recipe.seed).fit(vectors)
    distances = means.transform(vectors).min(axis=1)
    turn = np.empty(len(every), dtype=np.int64)  # of a text among those of its cluster
    for cluster in range(means.n_clusters):
        own = np.flatnonzero(means.labels_ == cluster)
        turn[own[np.argsort(distances[own], kind="stable")]] = np.arange(len(own))
    order = np.lexsort((means.labels_, turn))
    enough = int(np.searchsorted(np.cumsum(np.array(lengths)[order]), recipe.tokens)) + 1
    return [every[index] for index in order[:enough]]


def _documents(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Document]:
    return list(Encoder(tokenizer)([[(text, 1.0)] for text in texts])) if texts else []


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, shots: list[Sequence[int]], most: int
) -> tuple[list[str], int]:
    """Different texts, SURPLUS times as many tokens with those that are the same; and the positions that they took."""
    before, (rank, ranks) = Encoder(tokenizer).before, world()
    at_least = -(-SURPLUS * recipe.tokens // (BATCH * most))  # batches
    texts: dict[str, int] = {}  # and their tokens
    tokens = positions = number = 0
    while (tokens < SURPLUS * recipe.tokens or sum(texts.values()) < recipe.tokens) and number < TRIES * at_least:
        numbers = [[each] for each in range(number, number + at_least)]
        number += at_least
        for dealt in followed(deal(numbers, ranks), "writing text to rehearse"):
            rng = np.random.default_rng([recipe.seed, *dealt[rank]])
            prompts = [_prompt(shots, before, tokenizer, rng) for _ in range(BATCH)]
            found = gathered(_continue(model, tokenizer, prompts, recipe, most, int(rng.integers(2**62))))
            for said, took in found[: len({*map(id, dealt)})]:  # the others are repeats
                said = [row[:1] * (not shots and not before) + row[1:] for row in said]
                texts |= zip(tokenizer.batch_decode(said, skip_special_tokens=True), map(len, said), strict=True)
                tokens += sum(map(len, said))
                positions += took
    return list(texts), positions


def _prompt(
    shots: list[Sequence[int]], before: list[int], tokenizer: PreTrainedTokenizerBase, rng: np.random.Generator
) -> list[int]:
    """Some of the shots and what begins a text; without shots what begins one or, without that, a random token."""
    if shots:
        shown = rng.choice(len(shots), size=min(SHOTS, len(shots)), replace=False)
        return [token for index in shown for token in shots[index]] + before
    if before:
        return before
    special = set(tokenizer.all_special_ids)
    while (token := int(rng.integers(len(tokenizer)))) in special:
        pass
    return [token]


def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    recipe: Recipe,
    most: int,
    seed: int,
) -> tuple[list[list[int]], int]:
    """Each prompt's last token and those drawn after it; and the positions that were run."""
    width, end = max(map(len, prompts)), int(tokenizer.eos_token_id)
    ids, mask = torch.full((len(prompts), width), end), torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = torch.tensor(prompt), 1
    device = computing_device(model)
    settings: Any = GenerationConfig(
        do_sample=True,
        top_p=recipe.top_p,
        top_k=0,
        temperature=recipe.temperature,
        max_new_tokens=most,
        eos_token_id=end,
        pad_token_id=end,
    )
    with measuring(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        generate: Any = model.generate
        found = generate(
            ids.to(device), attention_mask=mask.to(device), generation_config=settings, synced_gpus=world()[1] > 1
        )
    drawn = [[token for token in row if token != end] for row in found[:, width:].tolist()]
    return [[prompt[-1], *row] for prompt, row in zip(prompts, drawn, strict=True)], found.numel()


def _keep(folder: Path, known: Written) -> None:
    content = json.dumps(asdict(known), ensure_ascii=False, indent=0).encode()

    def make(partial: Path) -> None:
        (partial / "texts.json").write_bytes(content)
        (partial / "sha256").write_text(hashlib.sha256(content).hexdigest())

    build_once(folder, make)


def _read(folder: Path) -> Written:
    content = (folder / "texts.json").read_bytes()
    if hashlib.sha256(content).hexdigest() != (folder / "sha256").read_text():
        raise UserError(f"{folder / 'texts.json'} is damaged. Delete the folder {folder}: the texts are written again.")
    return Written(**json.loads(content))
