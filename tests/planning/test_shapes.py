"""Sizes and FLOPs from a config.json against transformers' own models and torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM as Auto
from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from clmed.config import ModelConfig
from clmed.errors import UserError
from clmed.planning import shapes

PICO = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": LlamaConfig(**PICO),
    "llama-tied": LlamaConfig(**PICO, tie_word_embeddings=True),
    "llama-biases": LlamaConfig(**PICO, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**PICO),
    "qwen2": Qwen2Config(**PICO, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**PICO, head_dim=16),
    "gpt2": GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_positions=64),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_tensors_are_those_of_transformers(kind, tmp_path):
    CONFIGS[kind].save_pretrained(tmp_path)
    shape = shapes.of(ModelConfig(path=str(tmp_path)))
    model = Auto.from_config(CONFIGS[kind])
    assert shape.parameters == model.num_parameters()
    expected = sorted((p.shape[0], p.numel() // p.shape[0]) for p in model.parameters())
    assert sorted(list(shape.block) * shape.layers + list(shape.root)) == expected
    for ranks in (1, 2, 7):
        assert shape.shard(ranks) == sum(
            -(-p.shape[0] // ranks) * (p.numel() // p.shape[0]) for p in model.parameters()
        )


@pytest.mark.parametrize(
    ("name", "parameters"),  # as their model cards and the safetensors indices on the hub count them
    [
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
        ("hfl/chinese-llama-2-13b", 13_015_864_320 + 2 * 5120 * (55_296 - 32_000)),
    ],
)
def test_the_models_of_the_paper_are_built_in(name, parameters):
    assert shapes.of(ModelConfig(path=name)).parameters == parameters


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "qwen3"])
def test_flops_are_those_that_torch_counts(kind):
    """Eager attention, whose products the counter sees; the rotary angles are a product too, a tiny one."""
    length = 24
    model = Auto.from_config(CONFIGS[kind], attn_implementation="eager")
    ids = torch.arange(2 * length).view(2, length)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    shape = shapes.of_config(kind, CONFIGS[kind].to_dict())
    assert counter.get_total_flops() / ids.numel() == pytest.approx(shape.flops_per_token(length), rel=1e-3)


def test_an_unknown_model_is_told_with_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"The shape of nobody/nothing is not known.*config\.json"):
        shapes.of(ModelConfig(path="nobody/nothing"))
    for odd in ("[]", '{"model_type": "llama", "hidden_size": 64}'):
        (tmp_path / "config.json").write_text(odd)
        with pytest.raises(UserError, match=r"config\.json does not describe a transformer"):
            shapes.of(ModelConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        shapes.of(ModelConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="builds no causal language model of type t5"):
        shapes.of(ModelConfig(path=str(tmp_path)))
