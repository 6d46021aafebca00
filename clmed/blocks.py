"""More decoder blocks in a model: copies of its own, and a configuration that says so."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from clmed.errors import UserError
from clmed.shards import decoder_blocks

LISTS_OF_PLACES = {"mlp_only_layers", "moe_layers"}  # other lists of a configuration have an entry for each block


def repeat_blocks(model: PreTrainedModel, came_from: Sequence[int]) -> None:
    """Make the decoder blocks those that stood at these places, in this order; the first of each stays, others are
    copies of it.

    The model must be on the meta device. Raises UserError where its configuration cannot describe the result, so that
    the exported model would be another one.
    """
    blocks, settings = decoder_blocks(model), model.config.get_text_config()
    _describe(settings, len(blocks), came_from)
    grown: list[nn.Module] = []
    for index, place in enumerate(came_from):
        new = place not in came_from[:index]
        # A copy has the one configuration of all blocks, in which measurements set how attention is computed.
        grown.append(blocks[place] if new else copy.deepcopy(blocks[place], {id(settings): settings}))
    del blocks[:]
    blocks.extend(grown)
    for number, block in enumerate(blocks):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = number  # type: ignore[assignment]  # its place in a cache of keys and values
    _refuse_another(model)


def _describe(settings: Any, before: int, came_from: Sequence[int]) -> None:
    """Let a configuration of `before` blocks say what the new ones are."""
    for name, value in list(vars(settings).items()):
        if not isinstance(value, list | tuple) or "token" in name or name == "architectures":
            continue
        if name in LISTS_OF_PLACES:
            setattr(settings, name, [number for number, place in enumerate(came_from) if place in value])
        elif len(value) == before:
            setattr(settings, name, type(value)(value[place] for place in came_from))
    settings.num_hidden_layers = len(came_from)


def _refuse_another(model: PreTrainedModel) -> None:
    """UserError unless a model made from the configuration, as it is written and read, has the same blocks."""
    wanted, kind = _facts(model), type(model).__name__
    try:
        written = type(model.config).from_dict(json.loads(model.config.to_json_string()))
        written._attn_implementation = model.config._attn_implementation
        found = _facts(type(model)(written))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the config.json of {kind} cannot describe more blocks ({error}).") from error
    if differ := [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]:
        raise UserError(
            f"the config.json of {kind} cannot describe copies of its blocks: {min(differ)} would be another."
        )


def _facts(model: PreTrainedModel) -> dict[str, Any]:
    """By name, of all that is in the blocks: shapes, and the plain values by which modules differ."""
    facts: dict[str, Any] = {}
    for path, module in decoder_blocks(model).named_modules():
        facts |= {f"{path}.{name}": tensor.shape for name, tensor in module.named_parameters(recurse=False)}
        plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}
        facts |= {f"{path}.{name}": value for name, value in plain.items() if name != "training"}
    return facts
