"""What the sections of the schema are made of: their base class, kinds of values, and checks that several share."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from clmed.quantities import Quantity

Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch take, with room for that of each experience


class Section(BaseModel):
    """Strict (no text for a number), frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


class Budgeted(Section):
    epochs: Positive | None = None
    tokens: Quantity | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> "Budgeted":
        if (self.epochs is None) == (self.tokens is None):
            raise ValueError("give either epochs or tokens" + (", not both" if self.epochs is not None else ""))
        return self


def whole_rows(sequence_length: int, tokens_per_step: int) -> None:
    below = tokens_per_step // sequence_length * sequence_length
    if below != tokens_per_step:
        nearest = " or ".join(str(n) for n in (below, below + sequence_length) if n)
        raise ValueError(
            f"tokens_per_step ({tokens_per_step}) must be a multiple of sequence_length ({sequence_length}), "
            f"such as {nearest}"
        )


def only_defaults(section: Section, keys: Sequence[str], when: bool, why: str) -> None:
    for key in keys:
        if when and getattr(section, key) != type(section).model_fields[key].default:
            raise ValueError(f"{key} {why}")
