"""Tokenizer and base model: from the hub or a folder, or made from scratch by the configuration.

A model that is made (`model.build`) is a small Llama with a byte-level BPE, pretrained by the same trainer as every
experience; tokenizer and weights are cached by the content of everything that made them.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.distributed.fsdp import FSDPModule
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from clmed.config import BuildConfig, ExperimentConfig, ModelConfig, TrainingConfig, fingerprint, resolve
from clmed.data.cache import build_once, cache_dir
from clmed.data.rows import document_texts, source_fingerprint
from clmed.errors import UserError
from clmed.shards import computing_device
from clmed.training.gguf import readable
from clmed.training.loading import WholeOnlyError, load_sharded
from clmed.training.sharding import World, shard

log = logging.getLogger(__name__)


def load_tokenizer(config: ExperimentConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, made first where the model is to be built."""
    if config.model.build is not None:
        return AutoTokenizer.from_pretrained(build_tokenizer(config, config.model.build))
    return pretrained_tokenizer(config.model)


def pretrained_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a model of the hub or in a folder."""
    with _told_plainly(model):
        tokenizer: PreTrainedTokenizerBase = _loaded(AutoTokenizer, readable(model))
    if tokenizer.eos_token_id is None:
        raise UserError(f"The tokenizer of {model.path} has no end-of-text token; clmed ends every document with it.")
    return tokenizer


def model_shape(model: ModelConfig) -> Any:
    """The configuration of a model of the hub or in a folder; no weights are read."""
    with _told_plainly(model):
        return _loaded(AutoConfig, readable(model))


def load_model(model: ModelConfig, training: TrainingConfig, world: World) -> PreTrainedModel:
    """A pretrained causal language model in fp32 (whatever type it is stored in), on its device, and sharded.

    Where there are shards, each process reads its own only; a model whose files do not allow it is read whole by every
    process, with a warning.
    """
    with _told_plainly(model):
        files = readable(model)
        shape = _loaded(AutoConfig, files)
        limit = getattr(shape, "max_position_embeddings", None) or math.inf
        if training.sequence_length > limit:
            raise UserError(
                f"training.sequence_length is {training.sequence_length}, but {model.path} has only {limit} positions."
            )
        loaded = _in_pieces(files, shape, training, world)
        if loaded is None:
            whole = _loaded(AutoModelForCausalLM, files, dtype=torch.float32, attn_implementation="sdpa")
            loaded = shard(whole, world, training)
    refuse_leaks(loaded, training.precision)
    return loaded


def _in_pieces(files: ModelConfig, shape: Any, training: TrainingConfig, world: World) -> PreTrainedModel | None:
    if world.mesh is None:
        return None
    try:
        return load_sharded(files, shape, world, training)
    except WholeOnlyError as why:
        if world.main:
            log.warning("every process reads the whole of %s into its memory, as %s", files.path, why)
        return None


def _loaded(kind: Any, model: ModelConfig, **settings: Any) -> Any:
    return kind.from_pretrained(model.path, trust_remote_code=model.trust_remote_code, **settings)


@contextmanager
def _told_plainly(model: ModelConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"The model {model.path} could not be loaded: {str(error).strip().splitlines()[0]}") from error


@torch.no_grad()
def refuse_leaks(model: PreTrainedModel, precision: str = "fp32") -> None:
    """Raise UserError if a document sees the one before it in its row: some architectures ignore position ids."""
    training, device = model.training, computing_device(model)
    model.eval()
    ids = torch.arange(2, 18, device=device) % model.config.get_text_config().vocab_size
    positions = torch.arange(8, device=device).repeat(2)
    packed = model(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0, 8:].float()
    alone = model(input_ids=ids[None, 8:], use_cache=False).logits[0].float()
    model.train(training)
    if isinstance(model, FSDPModule):
        model.reshard()  # its root stays gathered after a forward alone
    tolerance = 1e-3 if precision == "fp32" else 3e-2
    if not torch.allclose(packed, alone, rtol=tolerance, atol=tolerance * alone.abs().max().item()):
        raise UserError(
            f"{type(model).__name__} does not keep documents apart that are packed into one row, so clmed cannot train "
            "it. Models of the Llama, Qwen, Mistral, GPT-2 and GPT-NeoX families can be."
        )


def new_model(build: BuildConfig, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A Llama with random weights, the same for the same seed; the global random state is left as found."""
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=build.hidden_size,
        intermediate_size=build.intermediate_size or 4 * build.hidden_size,
        num_hidden_layers=build.layers,
        num_attention_heads=build.heads,
        num_key_value_heads=build.key_value_heads or build.heads,
        max_position_embeddings=build.context,
        tie_word_embeddings=build.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(build.seed)
        model: LlamaForCausalLM = AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa")
        return model


def build_tokenizer(config: ExperimentConfig, build: BuildConfig) -> Path:
    """A byte-level BPE learned from the train parts of `tokenizer_from`: the folder it is cached in."""
    recipe = {"vocabulary": build.vocabulary, "sources": sources_fingerprint(config, build.tokenizer_from)}

    def make(folder: Path) -> None:
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=build.vocabulary,
            special_tokens=["</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        sources = {name: config.data[name] for name in build.tokenizer_from}
        texts = (
            text
            for name, source in sources.items()
            for text in document_texts(name, source, resolve(config, source.path), "train")
        )
        bpe.train_from_iterator(texts, trainer)
        PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>").save_pretrained(folder)

    return build_once(cache_dir() / "tokenizers" / fingerprint(recipe), make)


def sources_fingerprint(config: ExperimentConfig, names: list[str]) -> list[str]:
    """What identifies the content and the reading of several sources."""
    return [source_fingerprint(config.data[name], resolve(config, config.data[name].path)) for name in names]
