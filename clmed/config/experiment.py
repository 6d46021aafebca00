"""The whole file, and what must agree between its sections."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from clmed.complaints import InvalidSectionsError, Loc, Problem, did_you_mean, dotted, shown
from clmed.config.data import SourceConfig
from clmed.config.evaluation import EvaluationConfig
from clmed.config.model import ModelConfig
from clmed.config.sections import Name, Section, Seed
from clmed.config.stream import ExperienceConfig
from clmed.config.training import TrainingConfig
from clmed.config.watching import WatchingConfig

PAST = "past"  # what strategies call the rows of past experiences, so no source may
BASE_ONLY = "'{}' is marked base_only: only the making of the base model may read it"


def _strategies(value: Any) -> Any:
    """`strategy:` and `ewc:` with nothing behind them are empty mappings."""
    value = {} if value is None else value
    return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value


def _has_a_point(value: str) -> str:
    run, _, point = value.partition("@")
    if not (run and point):
        raise ValueError(f"must be RUN@POINT, such as runs/trunk@pretraining or runs/trunk@2, not {shown(value)}")
    return value


class ExperimentConfig(Section):
    """A whole run. No strategy at all means naive training, one experience after the other.

    `from: RUN@point` starts at the weights of a measurement point of another run instead of at the base model.
    `data_root` is the folder that relative paths in `data` and `evaluation` start from, itself seen from the folder in
    which the command is given; `miniworld` is the built-in world.
    """

    # By `from`, which is a word of Python, everywhere but in Python.
    model_config = Section.model_config | ConfigDict(serialize_by_alias=True)

    name: Name
    from_: Annotated[str, AfterValidator(_has_a_point)] | None = Field(default=None, alias="from")
    seed: Seed = 0
    data_root: Annotated[str, Field(min_length=1)] = "."
    model: ModelConfig
    data: dict[str, SourceConfig]
    stream: list[ExperienceConfig] = Field(min_length=1)
    strategy: Annotated[dict[str, dict[str, Any]], BeforeValidator(_strategies)] = {}
    evaluation: EvaluationConfig
    training: TrainingConfig
    watching: WatchingConfig = WatchingConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> "ExperimentConfig":
        if found := list(_disagreements(self)):
            raise InvalidSectionsError(found)
        return self


def _disagreements(config: ExperimentConfig) -> Iterator[Problem]:
    """What is wrong between sections: names that are not there or there twice, and rows longer than the context."""

    def unusable(loc: Loc, names: Sequence[str]) -> Iterator[Problem]:
        for index, name in enumerate(names):
            if name not in config.data:
                yield (*loc, index), f"{dotted(loc)}: no source '{name}' in data{did_you_mean(name, config.data)}"
            elif config.data[name].base_only and loc[0] != "model":
                yield (*loc, index), f"{dotted(loc)}: {BASE_ONLY.format(name)}"

    if PAST in config.data:
        yield ("data", PAST), f"the name '{PAST}' means the data of past experiences: choose another"
    if config.stream[0].optimizer.state == "carry":
        at: Loc = ("stream", 0, "optimizer", "state")
        yield at, f"{dotted(at)}: no experience comes before the first from which to carry it"
    for index, experience in enumerate(config.stream):
        yield from unusable(("stream", index, "data"), experience.data)
        if experience.name in [earlier.name for earlier in config.stream[:index]]:
            yield ("stream", index, "name"), f"another experience has the name '{experience.name}' already"

    exams = [each for each in (*config.evaluation.gain, *config.evaluation.retention) if each.benchmark is not None]
    for name, cleaned in config.data.items():
        if cleaned.decontaminate and not exams:
            why = "there is no exam under evaluation whose questions could be looked for"
            yield ("data", name, "decontaminate"), f"data.{name}.decontaminate: {why}"

    if (kl := config.watching.kl) is not None:
        at = ("watching", "kl", "data")
        yield from unusable(at, kl.data)
        for name in kl.data:
            if name in config.data and not config.data[name].heldout:
                yield at, f"KL on '{name}' needs held-out text, but data.{name}.heldout is 0"

    labels: set[str] = set()
    for role in ("gain", "retention"):
        for index, benchmark in enumerate(getattr(config.evaluation, role)):
            loc = ("evaluation", role, index)
            source = benchmark.perplexity
            if source is not None and benchmark.path is None:
                yield from unusable((*loc, "perplexity"), [source])
                if source in config.data and not config.data[source].heldout:
                    yield loc, f"perplexity of '{source}' needs held-out text, but data.{source}.heldout is 0"
            if benchmark.label in labels:
                yield loc, f"another benchmark has the name '{benchmark.label}' already: give this one a `name`"
            labels.add(benchmark.label)

    if (build := config.model.build) is not None:
        made: Loc = ("model", "build")
        yield from unusable((*made, "tokenizer_from"), build.tokenizer_from)
        lengths: dict[Loc, int] = {("training", "sequence_length"): config.training.sequence_length}
        if build.pretrain is not None:
            yield from unusable((*made, "pretrain", "data"), build.pretrain.data)
            lengths[*made, "pretrain", "sequence_length"] = build.pretrain.sequence_length
        for at, length in lengths.items():
            if length > build.context:
                yield at, f"{dotted(at)} ({length}) is more than model.build.context ({build.context})"
