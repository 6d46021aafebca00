"""LoRA adapters of peft in a model that may be sharded: add, find, merge, export. What such strategies stand on."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from clmed.complaints import did_you_mean
from clmed.errors import UserError
from clmed.shards import gather, local, own_rows

log = logging.getLogger(__name__)


def linear_layers(model: PreTrainedModel, targets: str | Sequence[str]) -> list[str]:
    """The paths of the linear layers whose names end so; `all-linear`: all but the head.

    Raises UserError for a name that none has, or that of a head which shares its weights with the embeddings.
    """
    head = model.get_output_embeddings()
    linear = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    if targets == "all-linear":
        return [path for path, module in linear.items() if module is not head]
    found: dict[str, nn.Module] = {}
    for target in [targets] if isinstance(targets, str) else targets:
        meant = {path: module for path, module in linear.items() if f".{path}".endswith(f".{target}")}
        if not meant:
            known = dict.fromkeys(path.rpartition(".")[2] for path in linear)
            raise UserError(f"lora: the model has no linear layer '{target}'{did_you_mean(target, known)}")
        found |= meant
    if head in found.values() and head.weight is model.get_input_embeddings().weight:
        raise UserError(
            "lora: the head has the weights of the embeddings, which an adapter would change: leave it out."
        )
    return [path for path in linear if path in found]


def add_adapter(model: PreTrainedModel, name: str, *, rank: int, alpha: float, targets: list[str]) -> None:
    """Put one more adapter beside each of these layers, still to be filled; it alone is trained, all of them act."""
    most = max(min(cast(Tensor, model.get_submodule(target).weight).shape) for target in targets)
    if rank > most:
        raise UserError(f"lora: a `rank` of {rank:,} is more than any of these layers has, which is {most:,} at most.")
    # In a model that it knows as a mixture of experts peft takes names such as `gate_proj` for those of experts, and
    # adapts the tensors that hold them. It does not look into what only holds the model.
    holder = nn.ModuleDict({"model": model})
    exact = [f"model.{target}" for target in targets]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=exact)  # type: ignore[arg-type]
    with warnings.catch_warnings(action="ignore"):  # of a second adapter, and of its own way with checkpointing
        inject_adapter_in_model(config, holder, name, low_cpu_mem_usage=True)
    assert targets == [path for path, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for _, layer in adapted(model):
        *earlier, _ = names = list(layer.lora_A)
        layer.set_adapter(names)
        for each in earlier:
            layer.lora_A[each].requires_grad_(False)
            layer.lora_B[each].requires_grad_(False)


def adapted(model: nn.Module) -> Iterator[tuple[str, Linear]]:
    """(path, layer) of each module with adapters."""
    return ((path, module) for path, module in model.named_modules() if isinstance(module, Linear))


def newest(layer: Linear) -> tuple[str, nn.Parameter, nn.Parameter]:
    """(name, A, B) of the adapter that was added last."""
    *_, name = layer.lora_A
    return name, *cast(tuple[nn.Parameter, nn.Parameter], (layer.lora_A[name].weight, layer.lora_B[name].weight))


@torch.no_grad()
def merge_newest(model: nn.Module) -> None:
    """Add what the newest adapter has learnt to the weights; all ranks call it, each changes its own shards."""
    for _, layer in adapted(model):
        name, down, up = newest(layer)
        weight = cast(Tensor, layer.get_base_layer().weight)
        local(weight).add_(_update(layer, name, gather(down), gather(up))[own_rows(weight)])


def merged(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model as it was without adapters, with what they have learnt.

    weights: whole, by their names in `model`; they are left as they are.
    """
    plain = {name.replace(".base_layer.", "."): w for name, w in weights.items() if ".lora_" not in name}
    for path, layer in adapted(model):
        learnt = [_update(layer, *adapter) for adapter in _adapters(path, layer, weights)]
        plain[f"{path}.weight"] = plain[f"{path}.weight"] + torch.stack(learnt).sum(dim=0)
    return plain


def save_adapter(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write all adapters as a single one that `PeftModel.from_pretrained(base, folder)` loads.

    Adapters that act together are one of the sum of their ranks: B1 A1 + B2 A2 = [B1 B2] [A1; A2]. Of a model in which
    peft would take some of the layers for experts nothing is written, but a warning.
    """
    found: dict[str, Tensor] = {}
    layers = dict(adapted(model))
    for path, layer in layers.items():
        _, downs, ups = zip(*_adapters(path, layer, weights), strict=True)
        found[f"base_model.model.{path}.lora_A.weight"] = torch.cat(downs)
        found[f"base_model.model.{path}.lora_B.weight"] = torch.cat(ups, dim=1)
    config = LoraConfig(
        r=sum(layer.r.values()),
        lora_alpha=sum(layer.lora_alpha.values()),
        target_modules=list(layers),
        fan_in_fan_out=layer.fan_in_fan_out,
        base_model_name_or_path=model.config.name_or_path,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    if not _read_as_written(config, model):
        log.warning("no folder `adapter`: in a %s peft would load it into the experts.", type(model).__name__)
        return
    config.save_pretrained(str(folder))
    save_file(found, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _read_as_written(config: LoraConfig, model: PreTrainedModel) -> bool:
    """Whether peft, when it reads the configuration, puts adapters beside the layers that it names."""
    read = copy.copy(config)
    try:
        convert_peft_config_for_transformers(read, model, conversions=None)
    except ValueError:  # of experts that are one tensor it would adapt a part
        return False
    return read.target_modules == config.target_modules


def _adapters(path: str, layer: Linear, weights: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """(name, A, B) of each adapter of a layer, oldest first."""
    return [
        (name, weights[f"{path}.lora_A.{name}.weight"], weights[f"{path}.lora_B.{name}.weight"])
        for name in layer.lora_A
    ]


def _update(layer: Linear, name: str, down: Tensor, up: Tensor) -> Tensor:
    """alpha/rank B A, in the shape of W (GPT-2's linear layers have theirs the other way round)."""
    product = layer.scaling[name] * (up @ down)
    return product.T if layer.fan_in_fan_out else product
