"""`evaluation`: what is measured before the first and after every experience."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clmed.config.sections import Name, Section, only_defaults
from clmed.quantities import Quantity


class BenchmarkConfig(Section):
    """An exam (`path`: a CMExam file, a folder with dev/ and test/, a hub id) or the perplexity of held-out text."""

    benchmark: Literal["cmexam", "mmlu", "cmmlu"] | None = None
    perplexity: str | None = None
    name: Name | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    shots: Annotated[int, Field(ge=0)] = 0
    shots_from: str | None = None
    scoring: Literal["letter", "text"] = "letter"
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
        for_exams = ("path", "shots", "shots_from", "scoring", "questions")
        only_defaults(self, for_exams, self.perplexity is not None, "is for exams, not for perplexity")
        only_defaults(self, ("shots_from",), self.benchmark != "cmexam", "is for cmexam: mmlu and cmmlu have dev/")
        if self.benchmark == "cmexam" and self.shots and self.shots_from is None:
            raise ValueError("shots of cmexam need shots_from, a file whose first rows are shown (not the test file)")
        return self


class EvaluationConfig(Section):
    """What is measured before the first and after every experience; a batch has at most `batch_tokens` tokens."""

    gain: list[BenchmarkConfig] = []
    retention: list[BenchmarkConfig] = []
    batch_tokens: Quantity = 16_000
