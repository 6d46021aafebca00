"""`clmed tune`: the methods to compare, how often each is tried, and what they are chosen and judged by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from clmed import yamlfile
from clmed.complaints import describe, problems
from clmed.config.evaluation import EvaluationConfig
from clmed.config.sections import Name, Positive, PositiveInt, Section, Seed
from clmed.errors import UserError


class RangeConfig(Section):
    """Where a parameter is looked for: between low and high, or among choices; source: who tried it there.

    scale: log looks for its logarithm; whole: whole numbers only.
    """

    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    whole: bool = False
    choices: list[Any] = []
    source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _one_kind(self) -> "RangeConfig":
        if self.choices:
            if self.low is not None or self.high is not None or self.whole or self.scale != "linear":
                raise ValueError("choices have no low, high, scale or whole")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("give low and high, the lower first, or choices")
        elif self.scale == "log" and self.low <= 0:
            raise ValueError("low must be above 0 where the scale is log")
        return self


class TuningConfig(Section):
    """Experiment files that differ in their strategies alone, each tried `trials` times with the data order of `seed`.

    Trials are chosen by `validation`; each file's setting and the chosen one are then judged by `test`, once, with
    `seeds`. flops: what every run may use; by default what naive training of the first file's stream takes. spaces:
    by strategy and parameter, in place of the published ones (clmed/tuning/spaces.yaml); `learning_rate` beside the
    strategies' names is a factor for all learning rates.
    """

    name: Name
    experiments: Annotated[list[str], Field(min_length=1)]
    trials: PositiveInt
    seed: Seed = 0
    seeds: Annotated[list[Seed], Field(min_length=1)]
    validation: EvaluationConfig
    test: EvaluationConfig
    flops: Positive | None = None
    spaces: dict[str, dict[str, RangeConfig]] = {}

    @model_validator(mode="after")
    def _fair(self) -> "TuningConfig":
        if self.seed in self.seeds:
            raise ValueError(f"seeds: the trials are chosen with seed {self.seed}, so the test needs others")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds names a seed twice")
        for part in ("validation", "test"):
            for role in ("gain", "retention"):
                if all(benchmark.perplexity is not None for benchmark in getattr(getattr(self, part), role)):
                    raise ValueError(f"{part}.{role} needs an exam: methods are compared by accuracy")
        return self


def load_tuning(path: Path, overrides: Sequence[str] = ()) -> TuningConfig:
    """A tuning file with `key=value` overrides; UserError lists all mistakes, one a line."""
    tree = yamlfile.read(path, overrides)
    try:
        return TuningConfig.model_validate(tree.data)
    except ValidationError as error:
        raise UserError(describe(problems(error, TuningConfig), tree.places)) from None
