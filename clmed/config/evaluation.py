"""`evaluation`: what is measured before the first and after every experience, or on a model outside a run."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from clmed.complaints import did_you_mean
from clmed.config.model import ModelConfig
from clmed.config.sections import Name, Names, PositiveInt, Section, only_defaults
from clmed.quantities import Quantity


def _floor(value: Any) -> Any:
    """-2.0: points of accuracy; "+5%", which a run writes down as 5.0: per cent of perplexity."""
    if isinstance(value, str) and (match := re.fullmatch(r"\+?(\d+(?:\.\d+)?) *%", value.strip())):
        return float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not value:
        raise ValueError("must be points that accuracy may fall (-2.0) or per cent that perplexity may rise (+5%)")
    return float(value)


Floor = Annotated[float, BeforeValidator(_floor)]

HARNESS = "lm_eval/"
"""What the name of a benchmark begins with that is a task of lm-evaluation-harness."""


class ColumnsConfig(Section):
    """How the table of a `multiple_choice` benchmark is read: names of columns, and what an answer is.

    choices: one column with all options, or a column for each; categories: columns whose values are categories;
    several: may several options be right? answer_as: an index counts from 0, a number from 1; told by the file itself
    where it can be.
    """

    question: str = "question"
    choices: Annotated[Names, Field(min_length=1)] = ["choices"]
    answer: str = "answer"
    subject: str | None = None
    categories: Names = []
    several: bool = False
    answer_as: Literal["letter", "text", "index", "number"] | None = None


class BenchmarkConfig(Section):
    """An exam (`path`: a file, a folder, a hub id; see docs/benchmarks.md) or the perplexity of held-out text.

    That is the held-out part of a source in `data`; with a `path`, all of the text there. Of an exam are asked the
    questions of the subjects and categories in `only` (all, if none is given) but for those in `without`.
    format_check: each measurement asks by text and without shots, too, to tell a lost form of answering from lost
    knowledge.
    `lm_eval/NAME` is a task of lm-evaluation-harness (`path`: a folder of task files of one's own), which says itself
    how many shots it shows unless `shots` are given.
    """

    benchmark: Annotated[str, Field(min_length=1)] | None = None
    perplexity: str | None = None
    name: Name | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    subset: str | None = None
    split: str | None = None
    shots: Annotated[int, Field(ge=0)] = 0
    shots_from: str | None = None
    scoring: Literal["letter", "text", "generate", "reason"] | None = None
    format_check: bool = False
    questions: Quantity | None = None
    only: Names = []
    without: Names = []
    columns: ColumnsConfig = ColumnsConfig()
    of: str | None = None
    longer_than: PositiveInt | None = None

    @property
    def label(self) -> str:
        """The name under which results are written."""
        return self.name or self.benchmark or f"{self.perplexity}_perplexity"

    @property
    def task(self) -> str | None:
        """The task of lm-evaluation-harness that this is."""
        if self.benchmark is None or not self.benchmark.startswith(HARNESS):
            return None
        return self.benchmark.removeprefix(HARNESS)

    @property
    def is_exam(self) -> bool:
        """Whether its questions are read, and asked, by clmed itself."""
        return self.benchmark is not None and self.task is None

    @property
    def given_shots(self) -> int | None:
        """None: the task says how many."""
        return self.shots if self.task is None or "shots" in self.model_fields_set else None

    @model_serializer(mode="wrap")
    def _without_shots(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is written down must load again equal: a task that says how many shots it shows has none written."""
        fields: dict[str, Any] = written(self)
        if self.given_shots is None:
            fields.pop("shots", None)
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> "BenchmarkConfig":
        if (self.benchmark is None) == (self.perplexity is None):
            raise ValueError(
                "give either benchmark or perplexity" + (", not both" if self.benchmark is not None else "")
            )
        for_exams = ("shots", "shots_from", "scoring", "format_check", "questions", "only", "without")
        only_defaults(self, for_exams, self.perplexity is not None, "is for exams, not for perplexity")
        only_defaults(self, ("subset", "split"), self.perplexity is not None and self.path is None, "is for a path")
        only_defaults(
            self, ("shots", "shots_from"), self.scoring in ("generate", "reason"), "is not for generated answers"
        )
        not_tasks = ("shots_from", "scoring", "subset", "split", "only", "without", "format_check")
        only_defaults(self, not_tasks, self.task is not None, "is not for tasks of lm_eval")
        only_defaults(self, ("columns",), self.benchmark != "multiple_choice", "is for multiple_choice")
        only_defaults(self, ("of", "longer_than"), self.benchmark != "cases", "is for cases")
        return self


class EvaluationConfig(Section):
    """What is measured before the first and after every experience; a batch has at most `batch_tokens` tokens.

    primary: the benchmarks that statements rest on (all, if none is given): `clmed compare` tests these alone, and
    corrects for their number.
    floors: the change against the base that is accepted, by benchmark: of accuracy in points (-2.0), of perplexity in
    per cent (+5%); on_floor: what a run does below one.
    """

    gain: list[BenchmarkConfig] = []
    retention: list[BenchmarkConfig] = []
    primary: Names = []
    batch_tokens: Quantity = 16_000
    floors: dict[str, Floor] = {}
    on_floor: Literal["warn", "stop"] = "warn"

    @model_validator(mode="after")
    def _of_benchmarks(self) -> "EvaluationConfig":
        known = {benchmark.label: benchmark for benchmark in [*self.gain, *self.retention]}
        for name in self.primary:
            if name not in known:
                raise ValueError(f"primary: there is no benchmark '{name}' here{did_you_mean(name, known)}")
        for name, floor in self.floors.items():
            if name not in known:
                raise ValueError(f"floors: there is no benchmark '{name}' here{did_you_mean(name, known)}")
            # Whether a task's score may fall or rise is known when the task has been read.
            if known[name].task is None and (floor > 0) != (known[name].perplexity is not None):
                raise ValueError(
                    f"floors: {name} needs "
                    + (
                        "per cent that perplexity may rise, such as +5%"
                        if floor < 0
                        else "points that accuracy may fall, such as -2.0"
                    )
                )
        return self


class EvaluateConfig(Section):
    """`clmed evaluate`: a model outside a run, and what is measured; text in rows of `sequence_length` tokens."""

    name: Name
    model: ModelConfig
    data_root: str = "."
    evaluation: EvaluationConfig
    sequence_length: Quantity = 1024

    @model_validator(mode="after")
    def _different_names(self) -> "EvaluateConfig":
        labels = [benchmark.label for benchmark in self.evaluation.retention]
        if twice := [label for index, label in enumerate(labels) if label in labels[:index]]:
            raise ValueError(f"two benchmarks have the name '{twice[0]}': give one of them another with --name")
        return self
