"""O-LoRA: the penalty's gradient against autograd, and that it keeps the adapters of two experiences apart."""

from typing import Any

import pytest
import torch

from clmed.errors import UserError
from clmed.training.sharding import World
from tests.forgetting import UNMEASURED, losses_after_two
from tests.small import full_state, make_trainer, small_config

PATH = "model.layers.1.self_attn.v_proj"


def overlap(weights: dict[str, torch.Tensor]) -> float:
    """The mean over layers of the largest cosine between the row spaces of the two adapters' A."""
    found = []
    for name, newest in weights.items():
        if ".lora_A.experience1." in name:
            old = weights[name.replace("experience1", "experience0")]
            bases = [torch.linalg.qr(a.T)[0] for a in (newest, old)]
            found.append(torch.linalg.matrix_norm(bases[0].T @ bases[1], ord=2).item())
    return sum(found) / len(found)


def test_the_gradient_is_that_of_the_formula(make_model: Any, tokenizer: Any) -> None:
    """What the strategy adds, against autograd of strength * sum of squares of A_t A_1'."""
    added: dict[str, torch.Tensor] = {}

    class Watch:
        supports_distributed = True

        def after_backward(self, trainer: Any, **kwargs: Any) -> None:
            if trainer.experience.name == "finetuning" and not added:
                layer = trainer.model.get_submodule(PATH)
                newest, old = (layer.lora_A[f"experience{index}"].weight for index in (1, 0))
                (gradient,) = torch.autograd.grad(0.7 * (newest @ old.detach().T).square().sum(), newest)
                added["formula"] = gradient
                added["found"] = newest.grad - self.plain  # type: ignore[operator]

        plain: torch.Tensor | None = None

    class Before(Watch):
        def after_backward(self, trainer: Any, **kwargs: Any) -> None:
            if trainer.experience.name == "finetuning":
                watch.plain = trainer.model.get_submodule(PATH).lora_A["experience1"].weight.grad.clone()

    watch = Watch()
    config = small_config({"olora": {"rank": 4, "strength": 0.7}}, evaluation=UNMEASURED)
    trainer = make_trainer(config, make_model(1), tokenizer, World())
    trainer.plugins.insert(0, Before())
    trainer.plugins.append(watch)
    trainer.train(trainer.stream)
    assert added["formula"].abs().max() > 1e-4
    torch.testing.assert_close(added["found"], added["formula"], rtol=1e-4, atol=1e-6)
    weights = full_state(trainer.model)
    assert not any("experience2" in name for name in weights)
    assert trainer.log["olora_penalty"] >= 0 if "olora_penalty" in trainer.log else True


def test_the_first_experience_is_forgotten_less(make_model: Any, tokenizer: Any) -> None:
    """The direction of the paper: with the penalty less is lost of the first, and as much is learnt of the second."""
    methods = {"lora": {"olora": {"strength": 0.0}}, "olora": {"olora": {"strength": 0.5}}}
    losses = losses_after_two(
        methods, make_model, tokenizer, sources=("exam", "medical"), tokens=(50_000, 40_000), lr=2e-2, seed=31
    )
    lost = {name: end - learnt for name, ((_, learnt, end), _) in losses.items()}
    assert lost["lora"] > 1.0, "something must be forgotten"
    assert lost["olora"] < 0.8 * lost["lora"], lost
    assert losses["olora"][1][-1] == pytest.approx(losses["lora"][1][-1], abs=0.05)


def test_the_second_adapter_turns_away_from_the_first(make_model: Any, tokenizer: Any) -> None:
    """How it gets there: with the penalty the subspaces overlap less than without."""
    ends = {}
    optimizer = {"lr": 1e-2, "warmup": 0.1}
    stream = [
        {"name": "one", "data": "medical", "tokens": 6000, "optimizer": optimizer},
        {"name": "two", "data": "exam", "tokens": 12_000, "optimizer": optimizer},
    ]
    for strength in (0.0, 0.5):
        method = {"olora": {"rank": 4, "strength": strength}}
        config = small_config(method, stream=stream, evaluation=UNMEASURED)
        trainer = make_trainer(config, make_model(1), tokenizer, World())
        trainer.train(trainer.stream)
        ends[strength] = overlap(full_state(trainer.model))
    assert ends[0.5] < 0.5 * ends[0.0], ends


def test_a_strength_that_is_none(make_model: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="olora needs a `strength`"):
        make_trainer(small_config({"olora": {"strength": -1.0}}), make_model(), tokenizer, World())
