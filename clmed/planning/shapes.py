"""A model's tensors by their sizes, from its config.json (or the header of its GGUF file): no weights are read, and for
most models torch is not either.

Llama, Mistral, Qwen2 and Qwen3 are counted from their published architecture; any other family is built on torch's
meta device (some seconds, no memory).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed.config import ModelConfig
from clmed.errors import UserError

COUNTED = ("llama", "mistral", "qwen2", "qwen3")
Tensors = tuple[tuple[int, int], ...]  # (first dimension, product of the others) of each

_LLAMA_2 = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": False}
_7B = _LLAMA_2 | {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip
_13B = _LLAMA_2 | {
    "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
}  # fmt: skip
_SMOLLM2 = {
    "model_type": "llama", "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3,
}  # fmt: skip
KNOWN: dict[str, Mapping[str, Any]] = {  # by the last part of the hub id, so that a plan needs no network
    "llama-2-7b-hf": _7B,
    "llama-2-13b-hf": _13B,
    "chinese-llama-2-7b": _7B | {"vocab_size": 55296},
    "chinese-llama-2-13b": _13B | {"vocab_size": 55296},
    "smollm2-135m": _SMOLLM2,
    "smollm2-135m-instruct": _SMOLLM2,
}


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a decoder: `block` the tensors of one of its `layers`, `root` those outside (embedding, norm, head);
    `matrices` those of a block's linear layers, by name.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    block: Tensors
    root: Tensors
    matrices: Mapping[str, tuple[int, int]]

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.layers * numbers(self.block) + numbers(self.root)

    def shard(self, ranks: int) -> int:
        """The most weights that one of `ranks` holds: FSDP2 cuts the first dimension of each tensor, rounding up."""
        return self.layers * numbers(self.block, ranks) + numbers(self.root, ranks)

    def flops_per_token(self, length: int, *, added: float = 0.0, trained: float = 1.0, below: float = 0.0) -> float:
        """FLOPs of forward and backward per token in rows of `length`: 6 x the weights in matrix products (the input
        embedding is none) + 12 x layers x heads x head width x length for attention.

        added: weights that a strategy adds; trained: the share of all that is trained: the others count 4 x; below: the
        blocks at the bottom through which no gradient flows, as neither they nor the embeddings are trained: 2 and 4 x.

        The second term counts whole rows, masked or not. Source: Chowdhery et al., 2022 (PaLM), arXiv 2204.02311, B.
        """
        block = sum(rows * columns for rows, columns in self.block if columns > 1)
        matrices = self.layers * block + self.vocabulary * self.hidden
        attention = 4.0 * self.heads * self.head_width * length
        left_out = below * (2.0 * block + 2.0 * attention)
        return (4.0 + 2.0 * trained) * (matrices + added) + 3.0 * self.layers * attention - left_out


def of(model: ModelConfig) -> ModelShape:
    """The shape of a configured model. Raises UserError where nothing on this machine tells it."""
    if model.build is not None:
        build = model.build
        config: Mapping[str, Any] = {
            "model_type": "llama",
            "vocab_size": build.vocabulary,
            "hidden_size": build.hidden_size,
            "intermediate_size": build.intermediate_size or 4 * build.hidden_size,
            "num_hidden_layers": build.layers,
            "num_attention_heads": build.heads,
            "num_key_value_heads": build.key_value_heads or build.heads,
            "tie_word_embeddings": build.tie_embeddings,
        }
        return of_config("a small Llama made from scratch", config)
    assert model.path is not None
    try:
        return of_config(model.path, _gguf(model) if model.gguf_file is not None else _config(model.path))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{model.path}: its config.json does not describe a transformer whose memory could be planned: {error}."
        ) from error


def known(model: ModelConfig) -> ModelShape | None:
    """The shape of a model whose tensors are counted without building it; None of any other."""
    try:
        config = _config(str(model.path)) if model.path is not None and model.gguf_file is None else {}
        return of(model) if model.build is not None or config.get("model_type") in COUNTED else None
    except (AttributeError, UserError):  # of a config.json that is none, which is told elsewhere
        return None


def of_config(name: str, config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes."""
    if config.get("model_type") not in COUNTED:
        return _built(name, config)
    hidden, intermediate, heads = (config[f"{key}"] for key in ("hidden_size", "intermediate_size", _HEADS))
    key_value_heads = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or hidden // heads
    tied = config.get("tie_word_embeddings", False)
    block = _llama_block(config, hidden, intermediate, heads * width, key_value_heads * width, width)
    return ModelShape(
        name=name,
        hidden=hidden,
        intermediate=intermediate,
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=key_value_heads,
        head_width=width,
        vocabulary=config["vocab_size"],
        tied=tied,
        block=block,
        matrices=dict(zip(_LLAMA_MATRICES, block, strict=False)),
        root=((config["vocab_size"], hidden), (hidden, 1)) + (() if tied else ((config["vocab_size"], hidden),)),
    )


_HEADS = "num_attention_heads"
_LLAMA_MATRICES = (
    *(f"self_attn.{name}_proj" for name in "qkvo"), "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


def _llama_block(
    config: Mapping[str, Any], hidden: int, intermediate: int, queries: int, keys: int, width: int
) -> Tensors:
    kind = config["model_type"]
    block = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]  # q, k, v, o
    block += [(intermediate, hidden), (intermediate, hidden), (hidden, intermediate)]  # gate, up, down
    block += [(hidden, 1), (hidden, 1)]  # norms
    if kind == "qwen2" or config.get("attention_bias"):
        block += [(queries, 1), (keys, 1), (keys, 1)] + ([] if kind == "qwen2" else [(hidden, 1)])
    if kind == "qwen3":
        block += [(width, 1), (width, 1)]  # norms of queries and keys
    if config.get("mlp_bias"):
        block += [(intermediate, 1), (intermediate, 1), (hidden, 1)]
    return tuple(block)


def numbers(tensors: Tensors, ranks: int = 1) -> int:
    """The numbers in `tensors`, or the most of them that one of `ranks` holds."""
    return sum(-(-rows // ranks) * columns for rows, columns in tensors)


def _config(path: str) -> Mapping[str, Any]:
    """The config.json of a folder, of the Hugging Face cache, or of the table above."""
    file = Path(os.path.expanduser(path)) / "config.json"
    if not file.is_file():
        file = _cached(path) or file
    if file.is_file():
        try:
            return json.loads(file.read_bytes())
        except ValueError as error:
            raise UserError(f"{file} is not JSON: {error}.") from error
    known = KNOWN.get(path.rstrip("/").rpartition("/")[2].lower())
    if known is None:
        raise UserError(
            f"The shape of {path} is not known on this machine: there is no {path}/config.json, it is not in the "
            f"Hugging Face cache, and it is none of those built in ({', '.join(KNOWN)}). "
            "Give model.path a folder with its config.json."
        )
    return known


def _gguf(model: ModelConfig) -> Mapping[str, Any]:
    """What transformers makes of the header of a GGUF file."""
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(str(model.path), gguf_file=model.gguf_file, local_files_only=True)
        return dict(found.to_dict())
    except ImportError as error:
        raise UserError("a model in a GGUF file needs the package gguf: pip install 'clmed[gguf]'.") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"The shape of {model.path} is not known on this machine: {model.gguf_file} cannot be read there ({error})."
        ) from error


def _cached(path: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(path, "config.json")
    except HFValidationError:  # a path, not an id
        return None
    return Path(found) if isinstance(found, str) else None


def _built(name: str, config: Mapping[str, Any]) -> ModelShape:
    """Any other family, built by transformers on the meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = config.get("model_type", "nothing")
    try:
        settings = AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings)
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{name}: transformers builds no causal language model of type {kind} ({error}).") from error
    blocks = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    inside = {id(parameter) for parameter in blocks.parameters()}
    outside = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    text = settings.get_text_config()
    heads = text.num_attention_heads
    return ModelShape(
        name=name,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=len(blocks),
        heads=heads,
        key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_width=getattr(text, "head_dim", None) or text.hidden_size // heads,
        vocabulary=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        block=_sizes(blocks[0].parameters()),
        root=_sizes(outside),
        matrices=matrices(blocks[0]),
    )


def matrices(block: Any) -> dict[str, tuple[int, int]]:
    """(rows, columns) of the matrices of a decoder block, by name."""
    return {
        name.removesuffix(".weight"): tuple(parameter.shape)
        for name, parameter in block.named_parameters()
        if parameter.ndim == 2
    }


def _sizes(parameters: Any) -> Tensors:
    return tuple((p.shape[0], p.numel() // p.shape[0]) for p in parameters)
