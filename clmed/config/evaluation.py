"""`evaluation`: what is measured before the first and after every experience."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clmed.config.sections import Name, Section, only_defaults
from clmed.quantities import Quantity


class BenchmarkConfig(Section):
    """An exam (`path`: a file, a folder, a hub id; see docs/benchmarks.md) or the perplexity of held-out text."""

    benchmark: Annotated[str, Field(min_length=1)] | None = None
    perplexity: str | None = None
    name: Name | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    subset: str | None = None
    split: str | None = None
    shots: Annotated[int, Field(ge=0)] = 0
    shots_from: str | None = None
    scoring: Literal["letter", "text"] | None = None
    questions: Quantity | None = None

    @property
    def label(self) -> str:
        """The name under which results are written."""
        return self.name or self.benchmark or f"{self.perplexity}_perplexity"

    @model_validator(mode="after")
    def _consistent(self) -> "BenchmarkConfig":
        if (self.benchmark is None) == (self.perplexity is None):
            raise ValueError(
                "give either benchmark or perplexity" + (", not both" if self.benchmark is not None else "")
            )
        for_exams = ("path", "subset", "split", "shots", "shots_from", "scoring", "questions")
        only_defaults(self, for_exams, self.perplexity is not None, "is for exams, not for perplexity")
        return self


class EvaluationConfig(Section):
    """What is measured before the first and after every experience; a batch has at most `batch_tokens` tokens."""

    gain: list[BenchmarkConfig] = []
    retention: list[BenchmarkConfig] = []
    batch_tokens: Quantity = 16_000
