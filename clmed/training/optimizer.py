"""The optimizer of an experience: a new one, or that of the experience before with its moments."""

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from clmed.config import OptimizerConfig
from clmed.errors import UserError


def make_optimizer(model: nn.Module, settings: OptimizerConfig) -> Optimizer:
    """AdamW over the trainable parameters; norms and biases are not decayed."""
    return AdamW(_groups(model, settings), lr=settings.lr, betas=settings.betas, fused=True)


def carry_on(optimizer: Optimizer | None, model: nn.Module, settings: OptimizerConfig) -> Optimizer:
    """The optimizer of the experience before, moments and step count included, with the settings of this one.

    Raises UserError where there is none, or where the model has other trainable parameters than it was made for.
    """
    if optimizer is None:
        raise UserError("optimizer.state is carry, but no experience came before from which to carry it: use reset.")
    groups = _groups(model, settings)
    for old, new in zip(optimizer.param_groups, groups, strict=True):
        if len(old["params"]) != len(new["params"]) or any(
            a is not b for a, b in zip(old["params"], new["params"], strict=True)
        ):
            raise UserError(
                "optimizer.state is carry, but the model's trainable parameters have changed since the experience "
                "before, so its moments belong to other weights: use optimizer.state: reset after such a change."
            )
        old |= {"weight_decay": new["weight_decay"], "betas": settings.betas}
    return optimizer


def _groups(model: nn.Module, settings: OptimizerConfig) -> list[dict[str, Any]]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
