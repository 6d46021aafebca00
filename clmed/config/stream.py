"""`stream`: the experiences, in their order."""

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, model_validator

from clmed.config.sections import Budgeted, Name, Names
from clmed.config.training import OptimizerConfig
from clmed.quantities import check_point, measurement_point

BASE = "base"  # what results call the model before the first experience, so no experience may


class ExperienceConfig(Budgeted):
    """One training phase; `budget` says whether replayed tokens come on top (domain) or count as well (total).

    `data` names the sources that are trained on, mixed by their sizes. `measure_at`: domain tokens (`400k`) or epochs
    (`1 epoch`) of the phase at which it is measured, too. The end is always measured.
    """

    name: Name
    data: Names = Field(min_length=1)
    budget: Literal["domain", "total"] = "domain"
    measure_at: list[Annotated[str | int, PlainValidator(check_point)]] = []
    optimizer: OptimizerConfig

    @model_validator(mode="after")
    def _consistent(self) -> "ExperienceConfig":
        if self.name == BASE:
            raise ValueError(f"the name '{BASE}' means the model before the first experience: choose another")
        if len(set(self.data)) < len(self.data):
            raise ValueError("data names a source twice")
        for point in self.measure_at:
            amount, unit = measurement_point(point)
            budget = self.tokens if unit == "tokens" else self.epochs
            if budget is not None and amount > budget:
                raise ValueError(f"measure_at {point!r} comes after the end, which is at {budget} {unit}")
        return self
