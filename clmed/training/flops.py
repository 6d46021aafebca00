"""The FLOPs of a model: of matrix products and attention, as far as they are made."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

# The layers of a decoder block that write what attention and MLP found into the residual stream, as families call them.
OUTPUTS = {"o_proj", "out_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "fc2"}


class Flops(NamedTuple):
    """Per token: of a forward alone, and of forward and backward."""

    forward: float
    both: float


def flops(model: PreTrainedModel, length: int) -> Flops:
    """Per token in rows of `length`. Where all is trained they are 2 and 6 x the weights in matrix products, and 4 and
    12 x layers x heads x head width x length, as `clmed plan` says (planning/shapes.py).

    A weight that is not trained counts 2 less, as it needs no gradient of its own; and 2 less where no gradient flows
    through, as nothing before it is trained. In a block that is the first to be trained this is told by the order in
    which its layers are defined: attention's inputs, its output, the MLP's inputs, its output. Attention counts whole.
    """
    text = model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    attention = 4.0 * text.num_attention_heads * width * length
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    blocks = max((list(m) for m in model.modules() if isinstance(m, nn.ModuleList)), key=len, default=[])
    inside = {id(parameter) for block in blocks for parameter in block.parameters()} | {*map(id, embeddings)}
    forward = both = attention * text.num_hidden_layers
    flows = any(weight.requires_grad for weight in embeddings)
    products: list[tuple[Tensor, bool]] = []
    for block in blocks:
        layers = list(_layers(block.named_parameters(), flows))
        products += [(layer.weight, layer.flows) for layer in layers]
        first = [layer for layer in layers if layer.stage == 0]
        both += 2 * attention * any(layer.flows or layer.weight.requires_grad for layer in first)
        flows |= any(parameter.requires_grad for parameter in block.parameters())
    rest = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    flows |= any(parameter.requires_grad for parameter in rest if parameter.ndim == 1)  # the last norm
    head = model.get_output_embeddings()
    tied = [head.weight] if head is not None and any(head.weight is weight for weight in embeddings) else []
    products += [(weight, flows) for weight in [*rest, *tied] if weight.ndim > 1]
    for weight, through in products:
        forward += 2.0 * weight.numel()
        both += 2.0 * weight.numel() * (1 + through + weight.requires_grad)
    return Flops(forward, both)


class _Layer(NamedTuple):
    """A matrix of a block, the stage at which it acts, and whether a gradient flows through it."""

    weight: Tensor
    stage: int
    flows: bool


def _layers(named: Iterable[tuple[str, Tensor]], flows: bool) -> Iterator[_Layer]:
    parameters = list(named)
    flows |= any(parameter.requires_grad for _, parameter in parameters if parameter.ndim == 1)  # norms come first
    stage, before, pending = 0, "", False
    for name, weight in parameters:
        if weight.ndim < 2:
            continue
        path = name.split(".")
        module = next((part for part in path if part in OUTPUTS), "")
        if module != before:  # an output is a stage of its own
            stage, flows, pending, before = stage + 1, flows or pending, False, module
        # The second matrix of an adapter stands behind the first.
        adapter = "lora_B" in path and weight.requires_grad
        yield _Layer(weight, stage, flows or adapter)
        pending |= weight.requires_grad
