"""`training` and `optimizer`: how a step is computed, and how large it is."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from clmed.config.sections import Positive, PositiveInt, Section, Share, only_defaults, whole_rows
from clmed.quantities import Quantity


class OptimizerConfig(Section):
    """AdamW, its learning rate `lr` warmed up over a share of the steps and decayed to `final` * lr.

    `clip` is the largest norm that the gradient keeps.

    `state: carry` goes on with the moments of the experience before, `reset` starts with none. `wsd` stays at lr and
    falls in the last `anneal` of the steps; `infinite` falls within `cooldown` of the steps to `level` * lr, stays, and
    anneals like wsd. Experiences that go on at the level have warmup, cooldown (and, before the last, anneal) 0.
    """

    lr: Positive
    warmup: Share = 0.01
    decay: Literal["cosine", "linear", "constant", "wsd", "infinite"] = "cosine"
    cooldown: Share = 0.25
    level: Annotated[float, Field(gt=0, le=1)] = 0.55
    anneal: Share = 0.1
    final: Annotated[float, Field(ge=0, le=1)] = 0.1
    state: Literal["reset", "carry"] = "reset"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: Annotated[tuple[Share, Share], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = (
        0.9,
        0.95,
    )
    clip: Positive = 1.0

    @model_validator(mode="after")
    def _shape(self) -> "OptimizerConfig":
        infinite = self.decay == "infinite"
        only_defaults(self, ("cooldown", "level"), not infinite, "is for decay: infinite")
        only_defaults(self, ("anneal",), self.decay not in ("wsd", "infinite"), "is for decay: wsd and infinite")
        shares = {"warmup": self.warmup, "cooldown": self.cooldown if infinite else 0.0}
        shares["anneal"] = self.anneal if self.decay in ("wsd", "infinite") else 0.0
        if sum(shares.values()) > 1:
            named = " + ".join(f"{name} {share:g}" for name, share in shares.items() if share)
            raise ValueError(f"{named} is more than all steps: their sum must be at most 1")
        if infinite and not 0 < self.final <= self.level:
            raise ValueError(
                f"final ({self.final:g}) must be above 0 and at most level ({self.level:g}): an infinite "
                "schedule anneals exponentially from the level to it"
            )
        return self


class TrainingConfig(Section):
    """How a step is computed; `weighting` says whether sources count by their share or by their supervised tokens.

    Rows have `sequence_length` tokens; a step has `tokens_per_step` of all processes together, of which each computes
    `micro_batch_size` rows at a time. `device: auto` takes GPUs where there are any, `sharding: auto` cuts the weights
    over the processes where there are several; `none` refuses to start with several.

    The model is sharded over `shard_ranks` processes (all, if not given); with fewer than there are, each group of so
    many holds a copy (hybrid sharding: the GPUs of one node, say). `cpu_offload` keeps shards and optimizer in host
    memory. Where a step has several micro-batches, `reduce_gradients: micro_batch` sums each into the shards;
    `step` reduces once, with the last, and keeps the whole gradient on every rank until then: 4 bytes for each weight
    of the model, for less communication.

    A checkpoint is saved every `save_every` steps, after each experience, and at the domain tokens of the whole run in
    `keep_at`; with `keep_measured`, at every measurement point as well, whose tokens are not known where it is written
    in epochs. The newest `checkpoints_kept` stay; for good stay those that are asked for so and, unless
    `share_experiences` is off, of the experiences' ends: other runs can start from them, and a run that begins alike
    takes them up.
    """

    sequence_length: Quantity
    tokens_per_step: Quantity
    micro_batch_size: PositiveInt = 8
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sharding: Literal["auto", "full", "none"] = "auto"
    shard_ranks: PositiveInt | None = None
    cpu_offload: bool = False
    reduce_gradients: Literal["micro_batch", "step"] = "micro_batch"
    activation_checkpointing: bool = False
    weighting: Literal["share", "tokens"] = "share"
    threads: PositiveInt | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    save_every: PositiveInt = 500
    checkpoints_kept: PositiveInt = 2
    keep_at: list[Quantity] = []
    keep_measured: bool = False
    asynchronous_saves: bool = True
    share_experiences: bool = True

    @model_validator(mode="after")
    def _rows(self) -> "TrainingConfig":
        whole_rows(self.sequence_length, self.tokens_per_step)
        return self

    @model_validator(mode="after")
    def _sharded(self) -> "TrainingConfig":
        if self.sharding == "none":
            if self.precision != "fp32":
                raise ValueError(f"precision {self.precision} is FSDP's mixed precision: use sharding full or auto")
            only_defaults(self, ["shard_ranks", "cpu_offload", "reduce_gradients"], True, "needs sharding full or auto")
        return self
