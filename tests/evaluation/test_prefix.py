"""Attention to a prefix that all rows share, against attention to a copy of it before each row."""

import pytest
import torch
from torch.nn.functional import pad
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from clmed.evaluation import prefix
from clmed.evaluation.prefix import SharedLayer, attend
from clmed.evaluation.scoring import Request, score
from tests.evaluation.test_scoring import assert_close, brute_force, make_requests


@pytest.fixture(autouse=True)
def nothing_waits():
    yield
    assert SharedLayer.waiting is None and not SharedLayer.apart


@pytest.mark.parametrize("groups", [1, 3])
def test_equals_a_copy_before_each_row(groups):
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(4, 2 * groups, 9, 8, generator=draw)
    key, value = (torch.randn(4, 2, 9, 8, generator=draw) for _ in range(2))
    mask = torch.zeros(4, 1, 9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
    mask[2, :, 3:, 0] = -torch.inf
    layer = SharedLayer(*(torch.randn(1, 2, 23, 8, generator=draw) for _ in range(2)))
    module = torch.nn.Module()
    module.num_key_value_groups = groups
    SharedLayer.waiting = layer
    found, _ = attend(module, query, key, value, mask, scaling=0.4)
    expected, _ = sdpa_attention_forward(module, query, *layer.before(key, value), pad(mask, (23, 0)), scaling=0.4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def families(vocabulary: int):
    settings = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 16, "max_position_embeddings": 512}
    yield GPT2LMHeadModel, GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=512)
    yield MistralForCausalLM, MistralConfig(**settings, **more, sliding_window=512)
    yield Qwen3ForCausalLM, Qwen3Config(**settings, **more)


def test_families_of_models(tokenizer, monkeypatch):
    """The prefix is added by the attention in every layer of each, and nothing is copied."""
    calls = []
    monkeypatch.setitem(
        prefix.AttentionInterface._global_mapping,
        prefix.NAME,
        lambda *args, **kwargs: calls.append(1) or attend(*args, **kwargs),
    )
    requests = make_requests(each=3)
    for kind, config in families(len(tokenizer)):
        torch.manual_seed(0)
        model = kind(config).eval()
        calls.clear()
        assert_close(
            score(model, tokenizer, requests, batch_tokens=700), brute_force(model, tokenizer, requests), tolerance=2e-5
        )
        assert calls and len(calls) % 2 == 0, kind  # two layers
        assert model.config._attn_implementation == "sdpa"


def test_attention_of_its_own_is_refused(make_model, tokenizer, monkeypatch):
    """A model that does not ask transformers for its attention would score as if there were no prefix."""
    model = make_model()
    for layer in model.model.layers:
        inner = layer.self_attn
        monkeypatch.setattr(
            inner, "config", type("Own", (), {"_attn_implementation": "sdpa", "__getattr__": lambda *_: None})()
        )
    shots = "Question: who?\nAnswer: B\n\n" * 6
    requests = [Request(group="g", context=f"{shots}Question: {n}?\nAnswer:", continuations=(" A", " B")) for n in "12"]
    with pytest.raises(ValueError, match="AttentionInterface"):
        score(model, tokenizer, requests, batch_tokens=100)
    assert model.config._attn_implementation == "sdpa"
