"""Writing a model, sharded or not, as a Hugging Face folder."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.training.sharding import World, on_first_rank


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, world: World) -> None:
    """Write `model` and `tokenizer` so that `AutoModelForCausalLM.from_pretrained(folder)` loads them.

    Every rank of `world` must call it; its first writes, into a temporary folder that is renamed when it is whole.
    Raises OSError, on all ranks, if it cannot be written, and leaves nothing of it.
    """
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def write() -> None:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with _plain_errors(partial):
                model.save_pretrained(partial, state_dict=state)
                tokenizer.save_pretrained(partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    on_first_rank(world, write)


@contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """safetensors and tokenizers tell the system's errors as text only; here they are an OSError again."""
    try:
        yield
    except Exception as error:  # the one of tokenizers is a bare Exception
        if isinstance(error, OSError) or not (code := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error
