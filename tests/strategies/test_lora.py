"""LoRA: peft itself as reference, merging and stacking over experiences, what is exported, and its direction."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from clmed.adapters import adapted, linear_layers
from clmed.errors import UserError
from clmed.training.export import save_model
from clmed.training.schedule import learning_rate
from clmed.training.sharding import World
from clmed.training.structure import changing
from tests.forgetting import UNMEASURED, losses_after_medicine
from tests.small import full_state, make_trainer, small_config

IDS = torch.arange(2, 34)[None]


def trained(strategy: dict[str, Any], model: Any, tokenizer: Any, **changes: Any) -> Any:
    """The trainer after two experiences without measurements."""
    config = small_config(strategy, **({"evaluation": UNMEASURED} | changes))
    trainer = make_trainer(config, model, tokenizer, World())
    trainer.train(trainer.stream)
    return trainer


def strategies(trainer: Any) -> list[Any]:
    return changing(plugin for plugin in trainer.plugins if hasattr(plugin, "adapt_model"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, use_cache=False).logits


ONE = [{"name": "only", "data": "medical", "tokens": 8000, "optimizer": {"lr": 1e-3, "weight_decay": 0.1}}]


class Start:
    """Keeps the trainable weights as they are before the first step."""

    supports_distributed = True

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        self.weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_the_weights_of_peft_itself_after_the_same_steps(make_model: Any, tokenizer: Any) -> None:
    """peft's model, torch's AdamW, the trainer's batches; no code of clmed's between them."""
    strategy = {"lora": {"rank": 4, "alpha": 12.0, "targets": ["q_proj", "down_proj"]}}
    trainer = make_trainer(small_config(strategy, stream=ONE, evaluation=UNMEASURED), make_model(3), tokenizer, World())
    trainer.plugins.append(start := Start())
    trainer.train(trainer.stream)

    config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"], lora_dropout=0.0)
    peer = get_peft_model(make_model(3), config).train()
    theirs = {name.removeprefix("base_model.model."): p for name, p in peer.named_parameters() if p.requires_grad}
    ours = {name.replace(".experience0.", ".default."): weight for name, weight in start.weights.items()}
    assert theirs.keys() == ours.keys() and len(ours) == 2 * 2 * 2
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    optimizer = torch.optim.AdamW(theirs.values(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1)
    (experience,) = trainer.stream
    settings = experience.config.optimizer
    optimizer.param_groups[0]["betas"] = settings.betas
    for step, window in enumerate(experience.batches):
        optimizer.param_groups[0]["lr"] = learning_rate(step, len(experience.batches), settings)
        optimizer.zero_grad()
        for batch in window:
            output = peer(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
            losses = torch.nn.functional.cross_entropy(
                output[:, :-1].transpose(1, 2), batch["labels"][:, 1:], reduction="none"
            )
            ((losses * batch["weights"][:, 1:]).sum(dim=1) * batch["weight"]).sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs.values(), settings.clip)
        optimizer.step()
    found = full_state(trainer.model)
    for name, parameter in theirs.items():
        mine = found[name.replace(".default.", ".experience0.")]
        assert not torch.equal(parameter, ours[name])
        torch.testing.assert_close(mine, parameter.detach(), rtol=0, atol=1e-6)
    assert torch.equal(found["model.norm.weight"], make_model(3).model.norm.weight)


@pytest.mark.parametrize("later", ["merge", "stack"])
def test_only_adapters_are_trained_and_nothing_jumps_between_experiences(
    later: str, make_model: Any, tokenizer: Any
) -> None:
    base = make_model(1)
    seen = []

    class Watch:
        supports_distributed = True

        def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
            seen.append((logits(trainer.model), full_state(trainer.model)))
            trainer.model.train()

        def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
            seen.append((logits(trainer.model), full_state(trainer.model)))
            trainer.model.train()

    config = small_config({"lora": {"rank": 2, "later": later}}, evaluation=UNMEASURED)
    trainer = make_trainer(config, make_model(1), tokenizer, World())
    trainer.plugins.append(Watch())
    trainer.train(trainer.stream)
    (begin, _), (end, after_one), (again, before_two), (final, after_two) = seen
    assert torch.equal(begin, logits(base))
    assert (end - begin).abs().max() > 1e-3 and (final - again).abs().max() > 1e-3
    torch.testing.assert_close(again, end, rtol=0, atol=1e-5)
    weight = "model.layers.0.mlp.up_proj.base_layer.weight"
    assert torch.equal(after_one[weight], base.model.layers[0].mlp.up_proj.weight)
    assert torch.equal(before_two[weight], after_one[weight]) == (later == "stack")
    assert torch.equal(after_two[weight], before_two[weight])
    first = "model.layers.0.mlp.up_proj.lora_B.experience0.weight"
    assert torch.equal(after_two[first], after_one[first]) == (later == "stack")
    assert any("experience1" in name for name in after_two) == (later == "stack")
    trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    latest = "experience1" if later == "stack" else "experience0"
    assert trainable == {name for name in after_two if latest in name}
    assert {id(p) for g in trainer.optimizer.param_groups for p in g["params"]} == {
        id(p) for p in trainer.model.parameters() if p.requires_grad
    }


@pytest.mark.parametrize("later", ["merge", "stack"])
def test_the_exported_model_is_plain_and_the_adapter_is_one_of_peft(
    later: str, make_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    trainer = trained({"lora": {"rank": 2, "later": later}}, make_model(1), tokenizer)
    wanted = logits(trainer.model)
    save_model(trainer.model, tokenizer, tmp_path / "model", World(), strategies(trainer))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert plain.state_dict().keys() == make_model(1).state_dict().keys()
    torch.testing.assert_close(logits(plain), wanted, rtol=0, atol=1e-5)
    adapter = tmp_path / "model" / "adapter"
    assert adapter.exists() == (later == "stack")  # the first is in the weights already
    if later == "stack":
        assert json.loads((adapter / "adapter_config.json").read_bytes())["r"] == 4
        peer = PeftModel.from_pretrained(make_model(1), str(adapter))
        torch.testing.assert_close(logits(peer), wanted, rtol=0, atol=1e-5)


def test_layers_that_keep_their_weights_the_other_way_round(tokenizer: Any, tmp_path: Path) -> None:
    """GPT-2's."""
    shape = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, attn_pdrop=0.0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape)
    trainer = trained({"lora": {"rank": 2}}, model, tokenizer)
    wanted = logits(trainer.model)
    save_model(trainer.model, tokenizer, tmp_path / "model", World(), strategies(trainer))
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), wanted, rtol=0, atol=1e-5
    )


MIXTURES: dict[str, dict[str, int]] = {
    "glm4_moe": {"n_routed_experts": 8, "moe_intermediate_size": 16, "first_k_dense_replace": 1},
    "qwen3_next": {"num_experts": 16, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
                   "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
                   "linear_value_head_dim": 8},
    "ernie4_5_moe": {"moe_num_experts": 8, "moe_intermediate_size": 16},
    "qwen2_moe": {"num_experts": 16, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
}  # fmt: skip


@pytest.mark.parametrize("family", MIXTURES)
def test_of_mixtures_of_experts_the_linear_layers_alone(family: str, tokenizer: Any, tmp_path: Path) -> None:
    """Peft takes names of their linear layers for those of their experts."""
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "vocab_size": len(tokenizer)}
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(0)
    shape = AutoConfig.for_model(family, **small, **more, **tokens, **MIXTURES[family])
    model = AutoModelForCausalLM.from_config(shape).eval()
    wanted, linear = logits(model), linear_layers(model, "all-linear")
    assert any("expert" in name for name, parameter in model.named_parameters() if parameter.ndim == 3)
    trainer = make_trainer(small_config({"lora": {"rank": 2}}), model, tokenizer, World())
    trainer.change_structure(trainer.stream[:1], initialise=True)
    assert torch.equal(logits(trainer.model), wanted)
    assert [path for path, _ in adapted(trainer.model)] == linear
    names = {name.partition(".lora_")[0] for name, _ in trainer.model.named_parameters() if ".lora_" in name}
    assert names == set(linear)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            parameter.add_(".lora_B." in name and 0.1 * torch.randn(parameter.shape))
    changed = logits(trainer.model)
    assert (changed - wanted).abs().max() > 1e-3
    folder = tmp_path / "model"
    save_model(trainer.model, tokenizer, folder, World(), strategies(trainer))
    plain = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(plain), changed, rtol=0, atol=1e-5)
    if (folder / "adapter").exists():  # where peft would read it as it is meant
        again = PeftModel.from_pretrained(AutoModelForCausalLM.from_config(shape), str(folder / "adapter"))
        assert [path.removeprefix("base_model.model.") for path, _ in adapted(again)] == linear
    else:
        assert family != "qwen2_moe"


def test_what_cannot_be(make_model: Any, tokenizer: Any) -> None:
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"targets": []}):
        with pytest.raises(UserError, match="lora needs"):
            make_trainer(small_config({"lora": wrong}), make_model(), tokenizer, World())
    for targets, tied, message in (
        (["q_proj", "query"], False, "no linear layer 'query'"),
        (["q_porj"], False, "did you mean 'q_proj'"),
        (["embed_tokens"], False, "no linear layer 'embed_tokens'"),  # peft's for embeddings are of another kind
        (["lm_head"], True, "the head has the weights of the embeddings"),
    ):
        model = make_model(tie_word_embeddings=tied)
        trainer = make_trainer(small_config({"lora": {"targets": targets}}), model, tokenizer, World())
        with pytest.raises(UserError, match=f"lora: .*{message}"):
            trainer.structure.refuse_impossible([experience.phase for experience in trainer.stream])


def test_a_rank_that_no_layer_has(make_model: Any, tokenizer: Any) -> None:
    for rank, targets in ((33, "all-linear"), (17, ["k_proj", "v_proj"])):
        config = small_config({"lora": {"rank": rank, "targets": targets}})
        trainer = make_trainer(config, make_model(), tokenizer, World())
        with pytest.raises(UserError, match=f"lora: a `rank` of {rank} is more than .*, which is {rank - 1} at most"):
            trainer.structure.refuse_impossible([experience.phase for experience in trainer.stream])


def test_targets_are_the_ends_of_names(make_model: Any) -> None:
    model = make_model()
    assert linear_layers(model, "q_proj") == [f"model.layers.{n}.self_attn.q_proj" for n in (0, 1)]
    assert linear_layers(model, ["0.mlp.up_proj", "lm_head"]) == ["model.layers.0.mlp.up_proj", "lm_head"]
    assert len(linear_layers(model, "all-linear")) == 2 * 7


def test_learns_less_and_forgets_less(make_model: Any, tokenizer: Any) -> None:
    """The direction of Biderman et al.: both losses move less than naively, and the domain's does fall."""
    losses = losses_after_medicine({"naive": {}, "lora": {"lora": {"rank": 2}}}, make_model, tokenizer)
    base, naive, lora = (losses[name] for name in ("base", "naive", "lora"))
    assert naive["medical"] < lora["medical"] < base["medical"], losses
    assert lora["general"] < naive["general"], losses
