"""The FLOPs of a step are those that torch counts, whatever strategies leave untrained."""

import math
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig

from clmed.training.flops import flops
from clmed.training.sharding import World
from tests.forgetting import UNMEASURED
from tests.small import make_trainer, small_config

LENGTH = 24
IDS = torch.arange(2 * LENGTH).view(2, LENGTH)
FAMILIES = {
    "gpt2": GPT2Config(n_embd=32, n_layer=4, n_head=2, n_positions=64, vocab_size=300, bos_token_id=0, eos_token_id=0),
    "gpt_neox": GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, vocab_size=300,
        bos_token_id=0, eos_token_id=0,
    ),
}  # fmt: skip


def counted(model: Any) -> tuple[float, float]:
    """(forward, both) per token. Eager attention, whose products the counter sees, and so some tiny others."""
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(input_ids=IDS, use_cache=False)
    with FlopCounterMode(display=False) as both:
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    return forward.get_total_flops() / IDS.numel(), both.get_total_flops() / IDS.numel()


@pytest.mark.parametrize(
    "strategy",
    [
        {},
        {"freeze": {"layers": 2}},
        {"freeze": {"layers": 2, "embeddings": False}},
        {"freeze": {"layers": 0}},
        {"lora": {"rank": 4}},
        {"lora": {"rank": 4, "targets": ["down_proj"], "later": "stack"}},
        {"lora": {"rank": 4, "targets": ["o_proj"]}},
        {"osft": {}},
        {"block_expansion": {"every": 2}},
    ],
    ids=lambda strategy: str(strategy).replace("'", ""),
)
@pytest.mark.parametrize("tied", [False, True])
def test_of_every_way_to_train_less(strategy: dict[str, Any], tied: bool, make_model: Any, tokenizer: Any) -> None:
    model = make_model(0, num_hidden_layers=4, tie_word_embeddings=tied, attn_implementation="eager")
    trainer = make_trainer(small_config(strategy, evaluation=UNMEASURED), model, tokenizer, World())
    trainer._before_training()
    trainer.change_structure(trainer.stream, initialise=True)
    whole = flops(make_model(0, num_hidden_layers=4, tie_word_embeddings=tied), LENGTH)
    found = flops(trainer.model, LENGTH)
    assert found == pytest.approx(counted(trainer.model), rel=1e-3)
    assert whole.both == 3 * whole.forward
    if strategy and (tied or strategy != {"freeze": {"layers": 0}}):  # frozen embeddings alone save no product
        assert found.both < 3 * found.forward
    assert trainer.flops_per_token == flops(trainer.model, trainer.corpus.length).both


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen", [0, 2])
def test_of_other_families(family: str, frozen: int) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES[family], attn_implementation="eager").eval()
    blocks = model.transformer.h if family == "gpt2" else model.gpt_neox.layers
    for module in [
        *blocks[:frozen],
        *([m for m in model.modules() if isinstance(m, torch.nn.Embedding)] * (frozen > 0)),
    ]:
        module.requires_grad_(False)
    found = flops(model, LENGTH)
    assert found == pytest.approx(counted(model), rel=1e-3)
    assert math.isclose(found.both, 3 * found.forward) == (frozen == 0)
