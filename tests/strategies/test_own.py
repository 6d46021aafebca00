"""A strategy of somebody's own, in a file: it adds a loss, and numbers of ranks and micro-batches do not change it."""

import pytest
import torch

from clmed.training.sharding import World
from tests.small import full_state, make_trainer, on_ranks, small_config

MINE = """
from clmed.strategy import Strategy

class SmallLogits(Strategy):
    \"\"\"Keep the logits small.\"\"\"

    def __init__(self, *, strength: float = 0.1):
        self.strength = strength

    def before_backward(self, trainer, **kwargs):
        trainer.add_loss(self.strength * trainer.mb_output.float().pow(2).mean(dim=(1, 2)))
"""


def train(file, micro_batch_size, world, tokenizer, make_model, **given):
    training = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": micro_batch_size}
    strategy = {f"{file}:SmallLogits": given} if file else {}
    quiet = {"gain": [], "retention": []}
    config = small_config(strategy, training=training, evaluation=quiet)
    trainer = make_trainer(config, make_model(1), tokenizer, world)
    trainer.train(trainer.stream)
    return full_state(trainer.model)


def test_an_added_loss_does_not_depend_on_ranks_or_micro_batches(tmp_path, tokenizer, make_model):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    one = train(file, 16, World(), tokenizer, make_model)
    others = [train(file, micro, World(), tokenizer, make_model) for micro in (3, 5)]
    others += on_ranks(2, lambda w: [train(file, micro, w, tokenizer, make_model) for micro in (8, 3)], tmp_path)
    for other in others:
        for name, weight in one.items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5)
    without = train(None, 16, World(), tokenizer, make_model)
    stronger = train(file, 16, World(), tokenizer, make_model, strength=10.0)
    assert any(not torch.allclose(one[name], without[name], atol=1e-4) for name in one)
    assert any(not torch.allclose(one[name], stronger[name], atol=1e-4) for name in one)


def test_dropout_follows_the_seed(tokenizer, make_model):
    """A model with dropout: the same global seed, the same weights (the run seeds torch before it begins)."""
    weights = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        quiet = {"gain": [], "retention": []}
        trainer = make_trainer(
            small_config({}, evaluation=quiet), make_model(1, attention_dropout=0.2), tokenizer, World()
        )
        trainer.train(trainer.stream)
        weights.append(full_state(trainer.model))
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama"])
def test_a_model_that_lets_packed_documents_see_each_other_is_refused(kind):
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, OPTConfig

    from clmed.errors import UserError
    from clmed.training.model import refuse_leaks

    shapes = {
        "opt": OPTConfig(vocab_size=99, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                         word_embed_proj_dim=32, max_position_embeddings=64),
        "gpt2": GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64),
        "llama": LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                             num_attention_heads=4, max_position_embeddings=64),
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(shapes[kind], attn_implementation="sdpa").train()
    if kind == "opt":
        with pytest.raises(UserError, match="OPTForCausalLM does not keep documents apart"):
            refuse_leaks(model)
    else:
        refuse_leaks(model)
    assert model.training
