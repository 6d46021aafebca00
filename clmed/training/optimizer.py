"""The optimizer of an experience."""

from torch import nn
from torch.optim import AdamW, Optimizer

from clmed.config import OptimizerConfig


def make_optimizer(model: nn.Module, settings: OptimizerConfig) -> Optimizer:
    """AdamW over the trainable parameters; norms and biases are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)
