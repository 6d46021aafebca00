"""Merge: put together what each experience changed, weight by weight."""

from typing import Any, Literal

import torch
from torch import Tensor

from clmed.errors import UserError
from clmed.shards import clone_shards, put_shards, shards, top_threshold
from clmed.strategy import Strategy


class Merge(Strategy):
    """After each experience merge the changes that all of them made to the base, weight by weight.

    Training goes through the experiences as usual: theta_i are the weights after experience i, d_i = theta_i - theta_0
    its change to the base. What is measured, saved and exported then is  theta_0 + scale * m  with, weight by weight,

        magmax  m = the d_i with the largest absolute value
        ties    m = the mean of those trimmed d_i whose sign is that of their sum; trimmed: of each tensor all but the
                `density` largest absolute values are 0

    and the next experience goes on from theta_i, not from the merge. ties trims tensor by tensor, as mergekit does.

    Family: weight space
    Source: MagMax: Marczak et al., 2024, arXiv 2407.06322; TIES: Yadav et al., 2023, arXiv 2306.01708
    """

    averages = True
    decides = ("with which weights an experience ends",)
    follows = ("ewc",)  # whose anchor is of the weights that go on

    def __init__(
        self, *, method: Literal["magmax", "ties"] = "magmax", scale: float = 1.0, density: float = 0.2
    ) -> None:
        if scale < 0 or not 0 < density <= 1:
            raise UserError("merge needs a `scale` of at least 0 and a `density` above 0 and up to 1.")
        self.method, self.scale, self.density = method, scale, density
        self.base: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] = {}  # theta_i
        self.changes: list[dict[str, Tensor]] = []  # d_1 ... d_i

    def before_train_dataset_adaptation(self, trainer: Any, **kwargs: Any) -> None:
        """Keep the base; later on, go back from the merge to the weights that trained, before others look at them."""
        if self.trained:
            put_shards(trainer.model, self.trained)
        else:
            self.base = clone_shards(trainer.model)

    @torch.no_grad()
    def after_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """The model is the merge until the next experience."""
        self.trained = clone_shards(trainer.model)
        change = {name: weights - self.base[name] for name, weights in self.trained.items()}
        if self.method == "ties":
            for name, parameter in trainer.model.named_parameters():
                if name in change:
                    change[name] *= change[name].abs() >= top_threshold(change[name].abs(), parameter, self.density)
        self.changes.append(change)
        for name, shard in shards(trainer.model):
            every = torch.stack([change[name] for change in self.changes])
            merged = largest(every) if self.method == "magmax" else elected_mean(every)
            shard.copy_(self.base[name] + self.scale * merged)

    def cost(self, size: Any) -> dict[str, float]:
        """The base, the weights that trained, and the change of each experience."""
        return {"copies": 2 + size.experiences}

    def state_dict(self) -> dict[str, Any]:
        """All of these, as local shards."""
        return {"base": self.base, "trained": self.trained, "changes": self.changes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.base, self.trained, self.changes = state["base"], state["trained"], state["changes"]


def largest(changes: Tensor) -> Tensor:
    """Of (n, ...) changes the one with the largest absolute value at each place."""
    return changes.gather(0, changes.abs().argmax(dim=0, keepdim=True)).squeeze(0)


def elected_mean(changes: Tensor) -> Tensor:
    """Of (n, ...) trimmed changes the mean, at each place, of those that have the sign of their sum."""
    agree = changes.sign() == changes.sum(dim=0).sign()
    agree &= changes != 0
    return (changes * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
