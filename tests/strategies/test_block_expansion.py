"""Block expansion: it begins as the base, trains copies only, and exports more layers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    OPTConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    SmolLM3Config,
)

from clmed.errors import UserError
from clmed.evaluation.encoding import Request
from clmed.evaluation.scoring import score
from clmed.training.export import save_model
from clmed.training.sharding import World
from tests.forgetting import UNMEASURED
from tests.small import full_state, make_trainer, small_config

IDS = torch.arange(2, 34)[None]
QUESTIONS = [
    Request(group="same", context=f"{'a town on a river ' * 8}{n}?\nAnswer:", continuations=(" A", " B")) for n in "123"
]
SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "max_position_embeddings": 128}
FAMILIES = {
    "gpt2": GPT2Config(n_embd=32, n_layer=4, n_head=2, n_positions=128),
    "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=64),
    "qwen2": Qwen2Config(**SMALL, intermediate_size=64, num_key_value_heads=2),
    # With one more list that has an entry for each layer, and with one of layers' numbers.
    "smollm3": SmolLM3Config(**SMALL, intermediate_size=64, num_key_value_heads=2, no_rope_layer_interval=2,
                             pad_token_id=1, bos_token_id=0, eos_token_id=[0, 1, 2, 3]),
    "qwen2_moe": Qwen2MoeConfig(**SMALL, intermediate_size=64, num_key_value_heads=2, mlp_only_layers=[0, 1, 2, 3]),
}  # fmt: skip


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, use_cache=False).logits


def test_trains_copies_only_and_exports_more_layers(make_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = make_model(1, num_hidden_layers=5)
    base, at_first = full_state(model), logits(model)
    seen = []

    class Begin:
        supports_distributed = True

        def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
            seen.append(logits(trainer.model))
            trainer.model.train()

    config = small_config({"block_expansion": {"every": 2}}, evaluation=UNMEASURED)
    trainer = make_trainer(config, model, tokenizer, World())
    trainer.plugins.append(Begin())
    trainer.train(trainer.stream)
    assert torch.equal(seen[0], at_first) and not torch.equal(seen[1], at_first)
    came_from = {0: 0, 1: 1, 3: 2, 4: 3, 6: 4}  # and 2 and 5 are the copies
    trained = full_state(trainer.model)
    for new, old in came_from.items():
        for name, weight in base.items():
            if name.startswith(f"model.layers.{old}."):
                assert torch.equal(trained[name.replace(f"layers.{old}.", f"layers.{new}.", 1)], weight)
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad == name.startswith(("model.layers.2.", "model.layers.5."))
    assert not torch.equal(trained["model.layers.2.mlp.up_proj.weight"], base["model.layers.1.mlp.up_proj.weight"])

    strategies = [plugin for plugin in trainer.plugins if hasattr(plugin, "exported")]
    save_model(trainer.model, tokenizer, tmp_path / "model", World(), strategies)
    assert json.loads((tmp_path / "model" / "config.json").read_bytes())["num_hidden_layers"] == 7
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(exported), logits(trainer.model))
    with torch.no_grad():  # each block has a place of its own in the cache
        cached = exported.generate(IDS[:, :8], max_new_tokens=6, do_sample=False, use_cache=True)
        again = exported.generate(IDS[:, :8], max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(cached, again)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_begin_as_they_were_and_are_loaded_as_they_are(
    family: str, tokenizer: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape = FAMILIES[family]
    shape.vocab_size = len(tokenizer)
    model = AutoModelForCausalLM.from_config(shape).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # biases, too
    wanted = logits(model)
    scores = score(model, tokenizer, QUESTIONS, batch_tokens=4096)
    trainer = make_trainer(small_config({"block_expansion": {"every": 2}}), model, tokenizer, World())
    trainer.change_structure(trainer.stream[:1], initialise=True)
    assert trainer.model.config.num_hidden_layers == 6
    torch.testing.assert_close(logits(trainer.model), wanted, rtol=0, atol=1e-6)
    again = score(trainer.model, tokenizer, QUESTIONS, batch_tokens=4096)  # after a prefix that all share
    np.testing.assert_allclose(again, scores, atol=1e-5)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape) * parameter.requires_grad)
    save_model(trainer.model, tokenizer, tmp_path / "model", World())
    exported, found = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert exported.config.eos_token_id == shape.eos_token_id
    assert (logits(trainer.model) - wanted).abs().max() > 1e-2
    torch.testing.assert_close(logits(exported), logits(trainer.model), rtol=0, atol=1e-6)


def test_what_cannot_be(make_model: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="block_expansion needs `every`"):
        make_trainer(small_config({"block_expansion": {"every": 0}}), make_model(), tokenizer, World())
    trainer = make_trainer(small_config({"block_expansion": {"every": 4}}), make_model(), tokenizer, World())
    with pytest.raises(UserError, match="the model has 2 blocks"):
        trainer.structure.refuse_impossible([experience.phase for experience in trainer.stream])
    small = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_experts": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
    for shape in (OPTConfig(**small, ffn_dim=64), Qwen2MoeConfig(**small, **experts, num_key_value_heads=2)):
        model = AutoModelForCausalLM.from_config(shape)
        trainer = make_trainer(small_config({"block_expansion": {"every": 1}}), model, tokenizer, World())
        with pytest.raises(UserError, match=f"{type(model).__name__} have no layers named"):
            trainer.structure.refuse_impossible([experience.phase for experience in trainer.stream])


def test_copies_that_no_configuration_describes(tokenizer: Any) -> None:
    """A model whose layers compute by their number, which those behind a copy have no more."""
    shape = GPT2Config(n_embd=32, n_layer=4, n_head=2, n_positions=128, scale_attn_by_inverse_layer_idx=True)
    shape.vocab_size = len(tokenizer)
    model = AutoModelForCausalLM.from_config(shape)
    trainer = make_trainer(small_config({"block_expansion": {"every": 2}}), model, tokenizer, World())
    with pytest.raises(UserError, match=r"block_expansion: the config.json of GPT2.* 2.attn.scaling would be another"):
        trainer.structure.refuse_impossible([experience.phase for experience in trainer.stream])
