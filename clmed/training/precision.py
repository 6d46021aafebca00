"""fp16: the loss is scaled up, so that small gradients do not vanish; a step whose gradients overflow is left out."""

import torch
from torch import nn

from clmed.errors import UserError
from clmed.shards import gradients

LARGEST, SMALLEST = 2.0**16, 2.0**-10
GROW_AFTER = 2000  # steps in a row without an overflow


class DivergedError(UserError):
    """The loss or the gradient is no longer a number; the weights are those before the step."""


class LossScaler:
    """A power of two by which the loss is multiplied and the final gradients divided.

    It halves when a gradient overflows (that step is skipped) and doubles after 2,000 good steps: the rule and numbers
    of torch.amp.GradScaler, which cannot tell of an overflow before strategies act on the gradients.

    Source: Micikevicius et al., 2018, arXiv 1710.03740, section 3.2
    """

    def __init__(self, scale: float = LARGEST) -> None:
        self.scale, self.good_steps = scale, 0

    @torch.no_grad()
    def unscale(self, model: nn.Module) -> bool:
        """Divide the gradients' local shards; whether one of this rank's is not finite."""
        shards = [gradient for _, gradient in gradients(model)]
        torch._foreach_mul_(shards, 1 / self.scale)
        return not nn.utils.get_total_norm(shards).isfinite()

    def update(self, overflow: bool) -> None:
        """After each step; overflow: whether a gradient of any rank was not finite.

        Raises DivergedError when no scale helps.
        """
        self.good_steps = 0 if overflow else self.good_steps + 1
        if overflow:
            self.scale /= 2
        elif self.good_steps == GROW_AFTER:
            self.scale, self.good_steps = self.scale * 2, 0
        if self.scale < SMALLEST:
            raise DivergedError(
                "The gradients overflow fp16 whatever the scale of the loss. A lower learning rate or a longer warm-up "
                "may help; else train in bf16 or fp32."
            )

    def state_dict(self) -> dict[str, float]:
        """What the following steps depend on."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take back what `state_dict` gave."""
        self.scale, self.good_steps = state["scale"], int(state["good_steps"])
