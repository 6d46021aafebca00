"""Tokenizer and base model: from the hub or a folder, or made from scratch by the configuration.

A model that is made (`model.build`) is a small Llama with a byte-level BPE, pretrained by the same trainer as every
experience; tokenizer and weights are cached by the content of everything that made them.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
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

from clmed.config import BuildConfig, ExperimentConfig, ModelConfig, fingerprint, resolve
from clmed.data.cache import build_once, cache_dir
from clmed.data.rows import document_texts, source_fingerprint
from clmed.errors import UserError


def load_tokenizer(config: ExperimentConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, made first where the model is to be built."""
    if config.model.build is not None:
        return AutoTokenizer.from_pretrained(build_tokenizer(config, config.model.build))
    tokenizer = _loaded(AutoTokenizer, config.model)
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"The tokenizer of {config.model.path} has no end-of-text token; clmed ends every document with it."
        )
    return tokenizer


def load_model(model: ModelConfig, training_length: int) -> PreTrainedModel:
    """A pretrained causal language model in fp32, from the hub or a folder (whatever type it is stored in)."""
    shape = _loaded(AutoConfig, model)
    limit = getattr(shape, "max_position_embeddings", None) or math.inf
    if training_length > limit:
        raise UserError(f"training.sequence_length is {training_length}, but {model.path} has only {limit} positions.")
    loaded: PreTrainedModel = _loaded(AutoModelForCausalLM, model, dtype=torch.float32, attn_implementation="sdpa")
    refuse_leaks(loaded)
    return loaded


def _loaded(kind: Any, model: ModelConfig, **settings: Any) -> Any:
    settings |= {"trust_remote_code": model.trust_remote_code}
    if model.gguf_file:
        settings["gguf_file"] = model.gguf_file
    try:
        return kind.from_pretrained(model.path, **settings)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"The model {model.path} could not be loaded: {str(error).strip().splitlines()[0]}") from error


@torch.no_grad()
def refuse_leaks(model: PreTrainedModel) -> None:
    """Raise UserError if a document sees the one before it in its row: some architectures ignore position ids."""
    training = model.training
    model.eval()
    ids = torch.arange(2, 18, device=model.device) % model.config.get_text_config().vocab_size
    positions = torch.arange(8, device=model.device).repeat(2)
    packed = model(input_ids=ids[None], position_ids=positions[None], use_cache=False).logits[0, 8:]
    alone = model(input_ids=ids[None, 8:], use_cache=False).logits[0]
    model.train(training)
    if not torch.allclose(packed, alone, rtol=1e-3, atol=1e-3 * alone.abs().max().item()):
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
