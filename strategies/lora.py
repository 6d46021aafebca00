"""LoRA: train small matrices beside the weights, which stay as they are."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from clmed.adapters import adapted, add_adapter, linear_layers, merge_newest, merged, newest, save_adapter
from clmed.errors import UserError
from clmed.shards import local, own_rows
from clmed.strategy import Strategy

if TYPE_CHECKING:
    from clmed.stream import Phase


class LoRA(Strategy):
    """Train low-rank updates of the weight matrices and nothing else: learns less and forgets less.

    A matrix W (out, in) computes  W x + alpha/rank B A x  where only A (rank, in) and B (out, rank) are trained. B
    begins at 0, so that the model begins as it was. At a later experience the adapter is merged into W and begins again
    (`later: merge`), or it stays beside W, frozen, and another is trained on top (`later: stack`).

    targets: the last parts of linear layers' names, or `all-linear`: every one but the head. alpha: 2 x rank by
    default. The exported model has the adapters merged into it; the folder `adapter` beside it holds them apart, as
    one of peft's, unless some are merged already.

    Family: architecture
    Source: Hu et al., 2022, arXiv 2106.09685; Biderman et al., 2024, "LoRA Learns Less and Forgets Less",
    arXiv 2405.09673
    """

    adapters = True
    decides = ("which weights are trained",)

    def __init__(
        self,
        *,
        rank: int = 16,
        alpha: float | None = None,
        targets: str | list[str] = "all-linear",
        later: Literal["merge", "stack"] = "merge",
    ) -> None:
        if rank < 1 or (alpha is not None and alpha <= 0) or not targets:
            raise UserError("lora needs a `rank` of at least 1, an `alpha` above 0 and at least one of `targets`.")
        self.rank, self.targets, self.later, self.alpha = rank, targets, later, 2.0 * rank if alpha is None else alpha
        self.experiences = 0  # for which the model has its adapter

    def cost(self, size: Any) -> Mapping[str, float]:
        """Two thin matrices beside each target; the others are not trained."""
        targets = size.matrices if self.targets == "all-linear" else self.targets
        targets = [targets] if isinstance(targets, str) else targets
        found = [shape for name, shape in size.matrices.items() if any(f".{name}".endswith(f".{t}") for t in targets)]
        trained = size.layers * self.rank * sum(rows + columns for rows, columns in found)
        return {
            "trained": trained,
            "added": trained * (size.experiences if getattr(self, "later", "stack") == "stack" else 1),
        }

    def adapt_model(self, model: PreTrainedModel, phase: "Phase") -> None:
        """Put an adapter beside each target, and freeze all the rest."""
        self.experiences = phase.index + 1
        if phase.index and self.later == "merge":
            return  # the same one begins again
        targets = [path for path, _ in adapted(model)] or linear_layers(model, self.targets)
        add_adapter(model, f"experience{phase.index}", rank=self.rank, alpha=self.alpha, targets=targets)

    def initialise(self, model: PreTrainedModel, phase: "Phase") -> None:
        """A as peft's, B zero; what an adapter that begins again has learnt goes into W."""
        if phase.index and self.later == "merge":
            merge_newest(model)
        generator = torch.Generator().manual_seed(1000 * phase.seed + phase.index)  # the same on every rank
        for _, layer in adapted(model):
            _, down, up = newest(layer)
            start = nn.init.kaiming_uniform_(torch.empty(down.shape), a=math.sqrt(5), generator=generator)
            local(down).copy_(start[own_rows(down)])
            local(up).zero_()

    def exported(self, model: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
        """The weights with the adapters merged; these alone go to `adapter`."""
        if self.later == "stack" or self.experiences == 1:
            save_adapter(model, weights, folder / "adapter")
        return merged(model, weights)
