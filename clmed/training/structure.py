"""A model whose structure strategies change: made again on the meta device, changed there, sharded, and filled.

Weights that were there keep their values and their memory: the new model takes the shards of the old one over, under
the names that they now have. So a change needs no second copy of the model, and it is the same before the first
experience, before a later one, when a run goes on, and when it is exported.
"""

import copy
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from clmed.config import TrainingConfig
from clmed.planning.shapes import matrices
from clmed.shards import decoder_blocks
from clmed.strategy import Strategy, changing
from clmed.stream import Phase
from clmed.training.sharding import World, shard


class Structure:
    """What the strategies have made of a model's structure so far.

    model: as it is before any change; strategies: all of the run, of which those count that have an `adapt_model`.
    """

    def __init__(
        self, model: PreTrainedModel, strategies: Sequence[Strategy], world: World, training: TrainingConfig
    ) -> None:
        # FSDP puts a class of its own in front of the model's.
        self.kind: Any = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
        self.shape = copy.deepcopy(model.config)
        self.strategies, self.changing = strategies, changing(strategies)
        self.world, self.training = world, training
        self.phases: list[Phase] = []

    def changed(self, model: PreTrainedModel, phases: Iterable[Phase]) -> PreTrainedModel:
        """The model after the changes for further `phases`, whose new weights are still to be filled (they are NaN).

        The weights that `model` has are the new one's as well: it must not be used any more.
        """
        phases = list(phases)
        if not self.changing or not phases:
            return model
        made, names = self._made(phases)
        self.phases += phases
        model.zero_grad()
        had = _tensors(model)
        shard(made, self.world, self.training)
        # By identity, as _apply does not tell names.
        kept = {id(tensor): had[names[name]] for name, tensor in _tensors(made).items() if name in names}
        device = torch.device("cpu") if self.training.cpu_offload else self.world.device

        def filled(tensor: Tensor) -> Tensor:
            if (old := kept.get(id(tensor))) is not None:
                return old.detach()
            return torch.empty_like(tensor, device=device).fill_(torch.nan) if tensor.is_meta else tensor

        made._apply(filled)  # as in clmed/training/loading.py: FSDP takes the new shards up there
        made.tie_weights()
        made.generation_config = model.generation_config
        return made.train(model.training)

    def initialise(self, model: PreTrainedModel, phase: Phase) -> None:
        """Let the strategies fill what they added before an experience."""
        with torch.no_grad():
            for strategy in self.changing:
                strategy.initialise(model, phase)

    def refuse_impossible(self, phases: Sequence[Phase]) -> None:
        """Raise UserError, before any work, for what strategies cannot do to this model."""
        for strategy in self.strategies:
            if type(strategy).check_blocks is not Strategy.check_blocks:
                blocks = decoder_blocks(self._plain())
                strategy.check_blocks(SimpleNamespace(layers=len(blocks), matrices=matrices(blocks[0])))
        if self.changing:
            self._made(list(phases))

    def _made(self, phases: list[Phase]) -> tuple[PreTrainedModel, dict[str, str]]:
        """The changed model on the meta device, and the names that its weights have in the one before the change."""
        made = self._plain()
        made.tie_weights()  # outside, where it does not make two of a tied weight
        self._change(made, self.phases)
        before = {id(tensor): name for name, tensor in _tensors(made).items()}
        self._change(made, phases)
        return made, {name: before[id(tensor)] for name, tensor in _tensors(made).items() if id(tensor) in before}

    def _plain(self) -> PreTrainedModel:
        """The model before any change, on the meta device."""
        with init_empty_weights(include_buffers=False):
            made: PreTrainedModel = self.kind(copy.deepcopy(self.shape))
        return made

    def _change(self, model: PreTrainedModel, phases: Iterable[Phase]) -> None:
        with init_empty_weights(include_buffers=False):
            for phase in phases:
                for strategy in self.changing:
                    strategy.adapt_model(model, phase)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())
