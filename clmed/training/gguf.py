"""GGUF files: converted by transformers, once, to a Hugging Face folder in the cache, which everything else reads."""

import os
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from clmed.config import ModelConfig, fingerprint
from clmed.data.cache import build_once, cache_dir
from clmed.errors import UserError

MARKS = ("hf_quantizer", "quantization_method", "is_quantized")  # with which transformers refuses to save


def readable(model: ModelConfig) -> ModelConfig:
    """The model as a folder or hub id without a GGUF file, which is converted to fp32 on the first call.

    The process that converts holds the whole model; others of its machine wait. Raises UserError if the file cannot be
    read, and what transformers raises for a file that is none.
    """
    if model.gguf_file is None:
        return model
    path = str(model.path)
    name = str(cached_file(path, model.gguf_file))
    file = os.stat(name)
    recipe = [os.path.realpath(name), file.st_size, file.st_mtime_ns, transformers.__version__]

    def convert(folder: Path) -> None:
        try:
            whole: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                path, gguf_file=model.gguf_file, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(path, gguf_file=model.gguf_file)
        except ImportError as error:
            raise UserError("a model in a GGUF file needs the package gguf: pip install 'clmed[gguf]'.") from error
        for mark in MARKS:
            vars(whole).pop(mark, None)
        vars(whole.config).pop("quantization_config", None)
        whole.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return ModelConfig(path=str(build_once(cache_dir() / "gguf" / fingerprint(recipe), convert)))
