"""O-LoRA: an adapter for each experience, orthogonal to the earlier ones."""

from typing import TYPE_CHECKING, Any, cast

import torch
from clmed.strategies.lora import LoRA  # type: ignore[import-not-found]  # mypy knows the folder as strategies
from torch import Tensor
from transformers import PreTrainedModel

from clmed.adapters import adapted, newest
from clmed.errors import UserError
from clmed.shards import gather, local, reduce_sum

if TYPE_CHECKING:
    from clmed.stream import Phase

LOG_EVERY = 10  # steps between two values of the penalty: the gradient is free, the value costs a sum over the ranks


class OLoRA(LoRA):
    """Learn each experience in a low-rank subspace that is orthogonal to those of the experiences before.

    Adapters are stacked as by `lora`, those of earlier experiences frozen. The gradient of
    strength * sum_(j<t) ||A_t A_j'||^2  (the squares of all inner products of the rows of A_t with those of A_j) is
    added to that of the newest adapter's A_t: the first experience is plain LoRA. (The authors' program adds up
    absolute values, their formula squares; this is the formula.)

    Family: architecture
    Source: Wang et al., 2023, arXiv 2310.14152
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: float | None = None,
        targets: str | list[str] = "all-linear",
        strength: float = 0.5,
    ) -> None:
        if strength < 0:
            raise UserError("olora needs a `strength` of at least 0.")
        super().__init__(rank=rank, alpha=alpha, targets=targets, later="stack")
        self.strength = strength
        self.earlier: dict[str, Tensor] = {}  # by layer the rows of all frozen A, whole: they do not change

    def initialise(self, model: PreTrainedModel, phase: "Phase") -> None:
        """As LoRA's; there is one more earlier adapter now."""
        super().initialise(model, phase)
        self.earlier = {}

    @torch.no_grad()
    def after_backward(self, trainer: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient, 2 strength A_t A_j' A_j, each rank to its own rows."""
        if self.experiences < 2:
            return
        if not self.earlier:
            self.earlier = _frozen(trainer.model)
        total = torch.zeros((), dtype=torch.float64)
        for path, layer in adapted(trainer.model):
            weight = newest(layer)[1]
            inner = local(weight) @ self.earlier[path].T
            assert weight.grad is not None
            local(weight.grad).add_(inner @ self.earlier[path], alpha=2 * self.strength)
            total += inner.square().sum(dtype=torch.float64).cpu()
        if trainer.clock.train_exp_iterations % LOG_EVERY == 0:
            trainer.log["olora_penalty"] = self.strength * reduce_sum(trainer.model, total).item()


def _frozen(model: PreTrainedModel) -> dict[str, Tensor]:
    """By layer the rows of the A of all adapters but the newest, on every rank."""
    found = {}
    for path, layer in adapted(model):
        *earlier, _ = layer.lora_A
        found[path] = torch.cat([gather(cast(Tensor, layer.lora_A[name].weight).detach()) for name in earlier])
    return found
