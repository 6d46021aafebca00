"""A vocabulary in which " A" is several tokens: the whole of a letter is scored, not its first token."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clmed.evaluation.encoding import Request
from clmed.evaluation.prompts import prompt
from clmed.evaluation.scoring import score
from tests.exam_files import load, table


@pytest.fixture
def characters() -> PreTrainedTokenizerFast:
    """Bytes and no merges: " A" is a space, shared by all letters, and then the letter."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={"</s>": 0, **{byte: n for n, byte in enumerate(alphabet, 1)}}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="</s>")


def test_letters_of_several_tokens(tmp_path, characters, make_model):
    assert len(characters(" A")["input_ids"]) == 2
    rows = [[f"Which of {n}?", "one", "two", "three", "four", "ABCD"[n]] for n in range(4)]
    for part in ("dev", "test"):
        table(tmp_path / "mmlu" / part / f"anatomy_{part}.csv", *rows)
    mmlu = load("mmlu", tmp_path / "mmlu", shots=1)
    asked = [prompt(mmlu, question, 1) for question in mmlu.questions]
    requests = [Request(group="anatomy", context=each.context, continuations=each.continuations) for each in asked]
    model = make_model(vocab_size=len(characters))
    for found, each in zip(score(model, characters, requests, batch_tokens=2_000), asked, strict=True):
        assert np.ptp(found) > 1e-4  # the letters differ, though their first tokens do not
        for value, text in zip(found, each.continuations, strict=True):
            ids = characters(each.context + text, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logs = model(ids).logits[0, -3:-1].log_softmax(-1)
            assert value == pytest.approx(float(logs.gather(1, ids[0, -2:, None]).sum()), abs=1e-4)
