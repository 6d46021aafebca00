"""OSFT: change weights only where they do little."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from clmed.errors import UserError
from clmed.shards import decoder_blocks, gradients, shards
from clmed.strategy import Strategy
from clmed.subspace import Directions, largest_directions

if TYPE_CHECKING:
    from clmed.stream import Phase


class OSFT(Strategy):
    """Orthogonal subspace fine-tuning: train only the smallest singular directions of each weight matrix.

    Before each experience the matrices of the decoder blocks are decomposed, W = U S V'. The largest directions U_h,
    V_h (the share 1 - ratio of them) hold what the model knows: they are kept. Every gradient G, with all that other
    strategies added to it, becomes  (I - U_h U_h') G (I - V_h V_h')  before clipping and AdamW, so that its moments
    know of nothing else; and after the step, whatever AdamW's scaling and weight decay made of it, W is set back to
    U_h' W = S_h V_h'  and  W V_h = U_h S_h.  Embeddings, norms and head are frozen. `ratio` is the same for all
    matrices, as in Red Hat's training_hub; the paper's choice by layer is not made.

    Family: architecture
    Source: Nayak et al., 2025, "Sculpting Subspaces", arXiv 2504.07097
    """

    decides = ("which weights are trained",)

    def __init__(self, *, ratio: float = 0.25) -> None:
        if not 0 < ratio < 1:
            raise UserError("osft needs a `ratio` (the share of singular directions that is trained) between 0 and 1.")
        self.ratio = ratio
        self.protected: dict[str, Directions] = {}

    def cost(self, size: Any) -> Mapping[str, float]:
        """The directions that are kept: for square matrices two copies of their share."""
        trained = size.layers * sum(rows * columns for rows, columns in size.matrices.values())
        kept = size.layers * sum((1 - self.ratio) * min(m) * sum(m) for m in size.matrices.values())
        return {"trained": trained, "copies": kept / trained}

    def check_blocks(self, blocks: Any) -> None:
        """Some matrix must have a direction to train, after rounding."""
        most = max(min(matrix) for matrix in blocks.matrices.values())
        if round((1 - self.ratio) * most) == most:
            raise UserError(f"osft: a `ratio` of {self.ratio:g} trains none of the {most:,} directions of a matrix.")

    def adapt_model(self, model: PreTrainedModel, phase: "Phase") -> None:
        """Freeze all but the matrices of the decoder blocks."""
        model.requires_grad_(False)
        for parameter in decoder_blocks(model).parameters():
            parameter.requires_grad_(parameter.ndim == 2)

    def before_training_exp(self, trainer: Any, **kwargs: Any) -> None:
        """Decompose the matrices as they are now."""
        trained = {name: parameter for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
        self.protected = dict(largest_directions(trained, 1 - self.ratio))

    def confine_gradients(self, trainer: Any) -> None:
        """Take the protected directions out of the gradients."""
        for name, gradient in gradients(trainer.model):
            self.protected[name].hold(trainer.model, gradient, as_found=False)

    def confine_weights(self, trainer: Any) -> None:
        """Set the protected part of the weights back."""
        for name, weight in shards(trainer.model):
            self.protected[name].hold(trainer.model, weight, as_found=True)

    def state_dict(self) -> dict[str, Any]:
        """The protected directions."""
        return {"protected": {name: vars(directions) for name, directions in self.protected.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.protected = {name: Directions(**directions) for name, directions in state["protected"].items()}
