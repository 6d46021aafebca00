"""OSFT: the protected directions after AdamW's steps, the closed form, and the direction of its paper."""

from typing import Any

import pytest
import torch
from clmed.strategies.osft import OSFT

from clmed.errors import UserError
from clmed.subspace import Directions
from clmed.training.sharding import World
from tests.forgetting import UNMEASURED, losses_after_medicine
from tests.small import full_state, make_trainer, small_config

# Large steps, decay and a tight clip: all that might lead AdamW out of the subspace.
STREAM = [
    {"name": name, "data": data, "tokens": 6000, "optimizer": {"lr": 1e-2, "weight_decay": 0.1, "clip": 0.1}}
    for name, data in (("pretraining", "medical"), ("finetuning", "exam"))
]


class Begins:
    """Keeps the weights at the beginning of each experience and at its end."""

    supports_distributed = True

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []
        self.protected: list[dict[str, Directions]] = []

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        self.seen.append(full_state(trainer.model))
        self.protected += [plugin.protected for plugin in trainer.plugins if isinstance(plugin, OSFT)]

    after_training_exp = before_training_exp


def largest(weight: torch.Tensor, ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(U_h, V_h') of a matrix, in fp64."""
    left, _, right = torch.linalg.svd(weight.double(), full_matrices=False)
    count = round((1 - ratio) * min(weight.shape))
    return left[:, :count], right[:count]


def inside(change: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> float:
    """How much of a change lies in these directions."""
    parts = [left.T @ change, change @ right.T]
    return max(part.norm().item() for part in parts) / change.norm().item()


# What writes gradients, on both sides of it, and what reads the weights after a step; strong enough to be seen.
BESIDE = {
    "agem": {"agem": {"from": ["english"], "memory": 20, "rows": 4}},
    "ewc": {"ewc": {"fisher_from": ["english"], "rows": 4, "strength": 1e5}},
    "l2": {"l2": {"strength": 10.0}},
    "distill": {"distill": {"strength": 20.0}},
    "ema": {"ema": {"decay": 0.5}},
}


@pytest.mark.parametrize(
    ("ratio", "before", "after"),
    [(0.25, (), ()), (0.5, (), ()), (0.5, ("l2", "ema"), ("distill", "ewc")), (0.5, ("ewc",), ("l2", "agem", "ema"))],
)
def test_no_update_reaches_the_protected_subspace(
    ratio: float, before: tuple[str, ...], after: tuple[str, ...], make_model: Any, tokenizer: Any
) -> None:
    first, last = ({key: value for name in names for key, value in BESIDE[name].items()} for names in (before, after))
    config = small_config({**first, "osft": {"ratio": ratio}, **last}, stream=STREAM, evaluation=UNMEASURED)
    trainer = make_trainer(config, make_model(2), tokenizer, World())
    trainer.plugins.append(begins := Begins())
    trainer.train(trainer.stream)
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 and all("_proj" in name for name in trained)
    for place in (0, 2):
        old, new = begins.seen[place : place + 2]
        for name, weight in old.items():
            if name in trained:
                change, kept = (new[name] - weight).double(), begins.protected[place][name]
                assert change.abs().max() > 1e-3
                right = kept.right.double()
                assert inside(change, kept.left.double(), right / right.norm(dim=1, keepdim=True)) < 5e-6, name
                # The directions are kept in fp32: close neighbours among them are less sharp than in fp64.
                assert inside(change, *largest(weight, ratio)) < 2e-4, name
            else:
                assert torch.equal(new[name], weight)
    moments = [trainer.optimizer.state[p]["exp_avg"].double() for p in trainer.model.parameters() if p.requires_grad]
    for name, moment in zip(trained, moments, strict=True):  # they know of nothing else
        kept, right = begins.protected[-1][name], begins.protected[-1][name].right.double()
        assert inside(moment, kept.left.double(), right / right.norm(dim=1, keepdim=True)) < 5e-6, name


def test_the_gradient_alone_would_not_do(make_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW scales each number by itself, and decay shrinks what is protected: the step must be projected, too."""
    monkeypatch.setattr(OSFT, "confine_weights", lambda self, trainer: None)
    config = small_config({"osft": {}}, stream=STREAM[:1], evaluation=UNMEASURED)
    trainer = make_trainer(config, make_model(2), tokenizer, World())
    trainer.plugins.append(begins := Begins())
    trainer.train(trainer.stream)
    before, after = begins.seen
    name = "model.layers.0.mlp.up_proj.weight"
    assert inside((after[name] - before[name]).double(), *largest(before[name], 0.25)) > 0.05


def test_the_closed_form() -> None:
    torch.manual_seed(0)
    for shape in ((12, 7), (7, 12)):
        weight, matrix = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
        left, sizes, right = torch.linalg.svd(weight, full_matrices=False)
        left, sizes, right = left[:, :5], sizes[:5], right[:5]
        directions = Directions(left=left, right=sizes[:, None] * right)
        rows, columns = (torch.eye(size, dtype=torch.float64) for size in shape)
        free = (rows - left @ left.T) @ matrix @ (columns - right.T @ right)
        found = matrix.clone()
        directions.hold(torch.nn.Module(), found, as_found=False)
        torch.testing.assert_close(found, free)
        found = matrix.clone()
        directions.hold(torch.nn.Module(), found, as_found=True)
        torch.testing.assert_close(found, free + left @ torch.diag(sizes) @ right)


def test_forgets_less_than_naive_training(make_model: Any, tokenizer: Any) -> None:
    losses = losses_after_medicine({"naive": {}, "osft": {"osft": {}}}, make_model, tokenizer)
    assert losses["osft"]["general"] < losses["naive"]["general"], losses
    assert losses["osft"]["medical"] < losses["base"]["medical"], losses


def test_a_ratio_that_is_none(make_model: Any, tokenizer: Any) -> None:
    for ratio in (0.0, 1.0):
        with pytest.raises(UserError, match="osft needs a `ratio`"):
            make_trainer(small_config({"osft": {"ratio": ratio}}), make_model(), tokenizer, World())
    trainer = make_trainer(small_config({"osft": {"ratio": 0.001}}), make_model(), tokenizer, World())
    with pytest.raises(UserError, match=r"a `ratio` of 0\.001 trains none of the 32 directions"):
        trainer.structure.refuse_impossible([experience.phase for experience in trainer.stream])
