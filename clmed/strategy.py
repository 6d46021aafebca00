"""Strategy: what a method against forgetting may do. Most override one or two methods.

A strategy is an Avalanche plugin: besides the hooks below it may define any of Avalanche's callbacks, which receive
the trainer (`trainer.model`, `trainer.optimizer`, `trainer.corpus`, `trainer.experience`). A loss is added in
`before_backward` (with `trainer.add_loss`, once per micro-batch), a gradient in `after_backward` (once per optimizer
step, when gradients are final local shards). Several strategies act in the order of the YAML.

Its parameters in the YAML are the keyword-only arguments of its `__init__`, with their types and defaults; a trailing
underscore is dropped (`from_` is `from:` in the YAML). The first line of its docstring is its summary; a line that
starts with `Family:` says among which it is listed, one with `Source:` its paper, and one with `Experimental:` why it
has not been seen to do what its paper says.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avalanche.core import BaseSGDPlugin
from torch import Tensor
from transformers import PreTrainedModel

from clmed import catalogue
from clmed.config import ExperienceConfig, ExperimentConfig, OptimizerConfig
from clmed.data.corpus import Corpus, Rows
from clmed.data.mixture import Blend
from clmed.errors import UserError

if TYPE_CHECKING:
    from clmed.stream import Phase


class Strategy(BaseSGDPlugin):
    """The base class: does nothing, which is naive training.

    The class attributes say what it can stand beside (clmed/combinations.py). They are read from the source, so their
    values must be written out there.

    alone: why no other strategy can act beside it ("trains nothing").
    decides: what only one strategy of a run can decide ("which weights are trained").
    follows: the names of strategies that must stand before it.
    adapters: whether it trains factors beside the weights, in each experience others; averages: whether it computes
    with weights of which these would be factors; across: whether it compares those of two experiences.
    optimizer: (setting, value) that every experience's `optimizer` must have.
    reads: its parameters that name sources, beside `from` and those that end in `_from`.
    rehearsed: its parameters that name sources which others must train on; in_stream: those that name sources which an
    experience must have in its `data`.
    makes: names of sources that it makes itself, so no other source may have them.
    joins: whether it makes one experience of all.
    gives: what the sources in its `from` get of the training ("a part of each step"): a source cannot get two things.
    """

    alone: str = ""
    decides: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    adapters: bool = False
    averages: bool = False
    across: bool = False
    optimizer: tuple[tuple[str, Any], ...] = ()
    reads: tuple[str, ...] = ()
    rehearsed: tuple[str, ...] = ()
    in_stream: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    joins: bool = False
    gives: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(supports_distributed=True, **kwargs)  # else Avalanche warns of each of them

    def stream(self, experiences: Sequence[ExperienceConfig]) -> Sequence[ExperienceConfig]:
        """The experiences to train on instead of the configured ones."""
        return experiences

    def sources(self, phase: "Phase", corpus: Corpus) -> Mapping[str, Rows]:
        """Rows that this strategy makes itself, by a name that its `mixture` may use."""
        return {}

    def remember(self, trainer: Any) -> Mapping[str, Rows]:
        """The rows that stand behind names of `sources` and could not be known before: they depend on the model.

        Each has as many rows as `sources` gave in its place. Called when an experience begins, before its callbacks,
        and again where a run goes on inside one, after `load_state_dict`: which rows they are belongs to the state, as
        the model is another one by then.
        """
        return {}

    def mixture(self, phase: "Phase", blend: Blend, corpus: Corpus) -> Blend:
        """What an experience trains on."""
        return blend

    def check(self, phase: "Phase", blend: Blend, corpus: Corpus) -> None:
        """Raise UserError for an experience that this cannot do, before any work; blend: what all make of it."""

    def check_blocks(self, blocks: Any) -> None:
        """Raise UserError for a model that this cannot do: one of so many `blocks.layers`, with such `blocks.matrices`.

        Both are as in `cost`. Like that method it may use its parameters, builtins and UserError alone: `clmed plan`
        runs it without importing its file, and so does `clmed validate` where the model's shape is known at once. A run
        calls it before any work.
        """

    def schedule(self, phase: "Phase", base: OptimizerConfig) -> OptimizerConfig:
        """The optimizer settings of an experience, its learning-rate schedule among them; base: those so far."""
        return base

    def adapt_model(self, model: PreTrainedModel, phase: "Phase") -> None:
        """Change the model's structure, in place, for an experience: add modules, freeze (`requires_grad`).

        The model is on the meta device, of the base's structure with the changes for the experiences before. Called for
        each of them in order, as often as the structure is made: it must depend on the parameters and `phase` alone.
        Parameters that stay the same objects keep their values, whatever their new names.
        """

    def initialise(self, model: PreTrainedModel, phase: "Phase") -> None:
        """Fill what `adapt_model` added (it is NaN), once, before the experience; the model is sharded by now."""

    def confine_gradients(self, trainer: Any) -> None:
        """Take out of the gradients what must not be trained: after every `after_backward`, before clipping."""

    def confine_weights(self, trainer: Any) -> None:
        """Set back what the step must not change: before every `after_update`."""

    def exported(self, model: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
        """The weights that `AutoModelForCausalLM.from_pretrained` must find, of a model that `adapt_model` changed.

        weights: whole, by the names in `model`; folder: of the exported model, to which files may be added. Called on
        the first rank alone.
        """
        return weights

    def cost(self, size: Any) -> Mapping[str, float]:
        """What it adds to plain training, for `clmed plan`: any of the keys

        copies  what it keeps beside the model, in fp32 copies of the trainable weights (sharded like them)
        gradients  gradients that it holds in a step beside the step's own
        rows    rows that every rank runs forward and backward, beyond those trained
        tokens  tokens trained beyond the domain's
        read    tokens run forward alone, by all ranks together (forward and backward count three times)
        logits  how often a step's logits stand in memory once more, in fp32
        cached  fp32 copies of the trainable weights on the disk of the cache
        disk    bytes there beside them
        frozen_layers, frozen_embeddings  blocks of the model that do not train; 1 where its input embeddings do not
        added   weights it adds to the model
        trained weights that are trained, where it freezes the others

        size: experiences (their number), domain_tokens (trained), tokens (of one pass, by source), steps (for the
        domain), step_tokens, row_tokens, past (tokens of one pass over what came before each experience, summed over
        the experiences), parameters, layers, matrices ((rows, columns) of the linear layers of one decoder block, by
        name). `clmed plan` runs this method without importing its file, on the parameters as they stand in the YAML: it
        may use them by their names (`self.rows`; `self.from_`) and the builtins, and nothing else.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to go on from here: tensors are local shards."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def make_strategies(config: ExperimentConfig) -> list[Strategy]:
    """The configured strategies, in their order. Raises UserError for what is none, or refuses its parameters."""
    made = []
    for name, parameters in config.strategy.items():
        kind = catalogue.load(name)
        if not issubclass(kind, Strategy):
            raise UserError(f"strategy '{name}' is no subclass of clmed.strategy.Strategy.")
        try:
            made.append(kind(**catalogue.arguments(parameters)))
        except (TypeError, ValueError) as error:
            raise UserError(f"strategy '{name}' does not take these parameters: {error}.") from error
        except UserError:
            raise
        except Exception as error:
            raise UserError(catalogue.told(name, error)) from error
    return made


def changing(strategies: Iterable[Strategy]) -> list[Strategy]:
    """Those that change the model's structure."""
    return [strategy for strategy in strategies if type(strategy).adapt_model is not Strategy.adapt_model]
