"""`watching`: what a run tells of itself while it goes on, beside train.jsonl."""

from typing import Annotated

from pydantic import Field

from clmed.config.sections import Names, PositiveInt, Section


class KLConfig(Section):
    """How far the model has moved from the base: KL(base || model) on `rows` held-out rows of `data`.

    It is logged every `every` steps and with an experience's last. The base's `top` most probable tokens are kept for
    each position, all others as one; a smaller vocabulary is kept whole.
    """

    data: Names = Field(min_length=1)
    rows: PositiveInt = 8
    every: PositiveInt = 50
    top: PositiveInt = 256


class WatchingConfig(Section):
    """tensorboard: to <run>/tensorboard; wandb: the project to log to (WANDB_MODE=offline: to <run>/wandb alone)."""

    kl: KLConfig | None = None
    tensorboard: bool = False
    wandb: Annotated[str, Field(min_length=1)] | None = None
