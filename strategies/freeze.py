"""Freeze: leave the embeddings and the bottom layers as they are."""

from typing import Any

from clmed.errors import UserError
from clmed.shards import decoder_blocks
from clmed.strategy import Strategy


class Freeze(Strategy):
    """Leave the input embeddings and the `layers` bottom layers as they are, and train the others.

    theta_i <- theta_i for every weight of the embeddings and of layers 1..k; the others train as usual. They have no
    gradient, no optimizer state and no copy in a Fisher or an anchor. Where the output layer shares the embeddings'
    weights, it is frozen with them.

    The early steps of new data undo alignment mostly in the bottom layers, which looks like forgetting ("spurious
    forgetting"): hence those and not the top ones. Published: embeddings and the bottom 1 to 6 layers, by the model.

    Family: architecture
    Source: Zheng et al., 2025, "Spurious Forgetting in Continual Learning of Language Models", arXiv 2501.13453
    """

    decides = ("which weights are trained",)

    def __init__(self, *, layers: int = 3, embeddings: bool = True) -> None:
        if layers < 0 or not (layers or embeddings):
            raise UserError("freeze needs a number of `layers` of at least 0, and something to freeze.")
        self.layers, self.embeddings = layers, embeddings

    def check_blocks(self, blocks: Any) -> None:
        """One layer must be left to train."""
        if self.layers >= blocks.layers:
            raise UserError(
                f"freeze: the model has {blocks.layers} layers, so at most {blocks.layers - 1} can be frozen."
            )

    def before_training(self, trainer: Any, **kwargs: Any) -> None:
        """Before anything is computed or an optimizer made, and so again when a run goes on."""
        frozen = [*decoder_blocks(trainer.model)[: self.layers]]
        if self.embeddings:
            frozen.append(trainer.model.get_input_embeddings())
        for module in frozen:
            module.requires_grad_(False)

    def cost(self, size: Any) -> dict[str, float]:
        """Less than plain training: gradients and optimizer state of the frozen weights are not there."""
        return {"frozen_layers": self.layers, "frozen_embeddings": 1 if self.embeddings else 0}
