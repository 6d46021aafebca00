"""`training` and `optimizer`: how a step is computed, and how large it is."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from clmed.config.sections import Positive, PositiveInt, Section, Share, whole_rows
from clmed.quantities import Quantity


class OptimizerConfig(Section):
    """AdamW, its learning rate `lr` warmed up over a share of the steps and decayed to `final` * lr."""

    lr: Positive
    warmup: Share = 0.01
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: Annotated[tuple[Share, Share], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = (
        0.9,
        0.95,
    )
    clip: Positive = 1.0


class TrainingConfig(Section):
    """How a step is computed; `weighting` says whether sources count by their share or by their supervised tokens.

    A checkpoint is saved every `save_every` steps and after each experience.
    """

    sequence_length: Quantity
    tokens_per_step: Quantity
    micro_batch_size: PositiveInt = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    sharding: Literal["auto", "full", "none"] = "auto"
    activation_checkpointing: bool = False
    weighting: Literal["share", "tokens"] = "share"
    threads: PositiveInt | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    save_every: PositiveInt = 500
    checkpoints_kept: PositiveInt = 2

    @model_validator(mode="after")
    def _rows(self) -> "TrainingConfig":
        whole_rows(self.sequence_length, self.tokens_per_step)
        return self
