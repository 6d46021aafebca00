"""The loss of a language model on packed rows, and how long it takes."""

import time

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel

from clmed.data.batches import Batches
from clmed.data.packing import IGNORED
from clmed.shards import computing_device


def row_losses(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """(rows,) summed next-token losses in nats, in fp32, each times its token's weight.

    labels, weights: (rows, length), not shifted, as in Hugging Face's data; without weights all tokens count alike.
    """
    targets = pad(labels[:, 1:], (0, 1), value=IGNORED)
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=IGNORED)
    losses = losses.view_as(labels)
    return (losses if weights is None else losses * pad(weights[:, 1:], (0, 1))).sum(dim=1)


def sampled_labels(logits: Tensor, labels: Tensor, seed: int) -> Tensor:
    """(rows, length) labels of which each that counts is drawn from the model's own distribution at its position.

    The same for the same seed, wherever it is computed: a uniform number is looked up in the cumulated probabilities.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(labels.shape, generator=generator)[:, 1:, None].to(logits.device)
    cumulated = logits[:, :-1].float().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(cumulated, uniform * cumulated[..., -1:]).squeeze(-1)
    return torch.where(labels == IGNORED, labels, pad(drawn, (1, 0)))


def seconds_per_token(model: PreTrainedModel, batches: Batches) -> float:
    """Time of a forward and backward of one micro-batch, per position; the second of two, as the first warms up."""
    device = computing_device(model)
    inputs = {key: value.to(device) for key, value in batches[0][0].items()}
    for _ in range(2):
        start = time.perf_counter()
        output = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False)
        row_losses(output.logits, inputs["labels"]).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        model.zero_grad()
    return seconds / inputs["input_ids"].numel()
