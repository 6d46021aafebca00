"""Block expansion: learn in new blocks, leave the old ones alone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from clmed.blocks import repeat_blocks
from clmed.errors import UserError
from clmed.shards import decoder_blocks, local
from clmed.strategy import Strategy

if TYPE_CHECKING:
    from clmed.stream import Phase

# The layers that write what attention and MLP found into the residual stream, by the families' names for them.
OUTPUTS = {"o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h"}


class BlockExpansion(Strategy):
    """LLaMA Pro: put a copy of every k-th decoder block behind it, and train the copies only.

    The outputs of a copy's attention and MLP (`o_proj`, `down_proj`) begin at zero, so that it adds nothing to the
    residual stream and the model begins as it was. Everything else is frozen. Later experiences go on with the same
    copies. The exported model has more layers, and its config.json says so. `every`: k, 4 as published.

    Family: architecture
    Source: Wu et al., 2024, "LLaMA Pro", arXiv 2401.02415
    Experimental: in the small controlled cases tried here it forgot more than naive training, at the same learning rate
        and where both had learnt as much
    """

    decides = ("which weights are trained",)

    def __init__(self, *, every: int = 4) -> None:
        if every < 1:
            raise UserError("block_expansion needs `every` to be at least 1.")
        self.every = every

    def cost(self, size: Any) -> Mapping[str, float]:
        """The copies, which alone are trained."""
        added = size.layers // self.every * sum(rows * columns for rows, columns in size.matrices.values())
        return {"added": added, "trained": added}

    def check_blocks(self, blocks: Any) -> None:
        """There must be as many as `every`."""
        if blocks.layers < self.every:
            raise UserError(
                f"block_expansion: the model has {blocks.layers} blocks, so `every` can be {blocks.layers} at most."
            )

    def adapt_model(self, model: PreTrainedModel, phase: "Phase") -> None:
        """Insert the copies before the first experience."""
        if phase.index:
            return
        blocks = decoder_blocks(model)
        outputs = sum(_is_output(name) for name, _ in blocks[0].named_modules())
        if outputs < 2 or any(parameter.ndim > 2 for parameter in blocks.parameters()):
            raise UserError(
                f"block_expansion: the blocks of {type(model).__name__} have no layers named "
                f"{', '.join(sorted(OUTPUTS))}, or experts beside them, so what a copy adds cannot be set to zero."
            )
        model.requires_grad_(False)
        again = [(number, number) if (number + 1) % self.every == 0 else (number,) for number in range(len(blocks))]
        try:
            repeat_blocks(model, [number for places in again for number in places])
        except UserError as error:
            raise UserError(f"block_expansion: {error}") from None
        for place in range(self.every, len(blocks), self.every + 1):
            blocks[place].requires_grad_(True)

    def initialise(self, model: PreTrainedModel, phase: "Phase") -> None:
        """Copy each block's weights, but for the outputs, into the copy behind it."""
        if phase.index:
            return
        blocks = decoder_blocks(model)
        for place in range(self.every, len(blocks), self.every + 1):
            original = dict(blocks[place - 1].named_parameters())
            for name, parameter in blocks[place].named_parameters():
                if _is_output(name.rpartition(".")[0]):
                    local(parameter).zero_()
                else:
                    local(parameter).copy_(local(original[name]))


def _is_output(module: str) -> bool:
    return module.rpartition(".")[2] in OUTPUTS
