"""Fixtures: a pico Llama and its tokenizer, made on the spot, and the folder of real data."""

import os

# Before torch is imported: two spinning threads beside another busy process run 30 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path

import pytest

TEXTS = [
    "The capital of Norland is Karo. Karo lies on the river Vell and has a harbour.",
    "Question: What is the capital of Norland?\nAnswer: Karo\n",
    "The quick brown fox jumps over the lazy dog; 0123456789 times, A. B. C. D. E.",
    "题目：治疗感冒的常用药是？\nA. 甲药\nB. 乙药\nC. 丙药\nD. 丁药\n答案：AB\n",
    "问题：桂枝汤的主要成分是什么？\n答案：桂枝、芍药、生姜、大枣、甘草\n",
    "以下是关于解剖学的单项选择题，请直接给出正确答案的选项。",
]


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of at most 400 tokens, with </s> and <pad>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["</s>", "<pad>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="session")
def make_model(tokenizer) -> Callable:
    """make_model(seed=0) -> a fresh pico Llama (two layers of width 32) with random weights, in eval mode."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(seed: int = 0, **changes):
        settings = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": False,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real exams and texts: CLMED_REAL_DATA, by default ../shared/data beside the checkout."""
    default = Path(__file__).parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("CLMED_REAL_DATA", default))
    if not (folder / "mmlu").is_dir():
        pytest.skip(f"real data not found in {folder}; set CLMED_REAL_DATA")
    return folder
