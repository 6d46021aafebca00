"""The FLOPs of a model, and what share of a device's peak they make."""

from torch import nn
from transformers import PreTrainedModel


def flops_per_token(model: PreTrainedModel, length: int) -> float:
    """FLOPs of forward and backward per token in rows of `length`, by the formula of `clmed plan` (planning/shapes.py):
    6 x the weights in matrix products + 12 x layers x heads x head width x length. A weight that is not trained counts
    4 x: it needs no gradient of its own."""
    embeddings = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings)
    head = model.get_output_embeddings()
    matrices += embeddings.get(id(head.weight), 0) if head is not None else 0  # a tied embedding is the head's matrix
    text = model.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim > 1 and id(p) not in embeddings)
    if head is not None and head.weight.requires_grad:
        trained += embeddings.get(id(head.weight), 0)
    return 4.0 * matrices + 2.0 * trained + 12.0 * text.num_hidden_layers * text.num_attention_heads * width * length
