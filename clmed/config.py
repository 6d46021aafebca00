"""The YAML schema: one frozen model per section, each of which checks itself; an error names the file and the line.

Whole numbers may be written like people write them: `1B`, `750M`, `400k`, `1_000` (k is 1,000, not 1,024). Paths of
data are relative to `data_root`, all others (data_root itself, models, strategy files) to the current folder.
What can only be told by looking at the disk is checked in clmed/validation.py.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from clmed import yamlfile
from clmed.complaints import InvalidSectionsError, Loc, Places, Problem, describe, did_you_mean, dotted, problems
from clmed.errors import UserError
from clmed.quantities import Quantity, check_point, measurement_point

LOCAL_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
PAST = "past"  # what strategies call the rows of past experiences, so no source may
BASE_ONLY = "'{}' is marked base_only: only the making of the base model may read it"
BASE = "base"  # what results call the model before the first experience, so no experience may

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Strict (no text for a number), frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)


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


class _Budgeted(Section):
    epochs: Positive | None = None
    tokens: Quantity | None = None

    @model_validator(mode="after")
    def _one_budget(self) -> "_Budgeted":
        if (self.epochs is None) == (self.tokens is None):
            raise ValueError("give either epochs or tokens" + (", not both" if self.epochs is not None else ""))
        return self


def _whole_rows(sequence_length: int, tokens_per_step: int) -> None:
    below = tokens_per_step // sequence_length * sequence_length
    if below != tokens_per_step:
        nearest = " or ".join(str(n) for n in (below, below + sequence_length) if n)
        raise ValueError(
            f"tokens_per_step ({tokens_per_step}) must be a multiple of sequence_length ({sequence_length}), "
            f"such as {nearest}"
        )


class PretrainConfig(_Budgeted):
    """How the made base learns before the stream; its sizes are its own, so that the run's do not change the base."""

    data: Names = Field(min_length=1)
    sequence_length: Quantity
    tokens_per_step: Quantity
    micro_batch_size: PositiveInt = 8
    optimizer: OptimizerConfig

    @model_validator(mode="after")
    def _rows(self) -> "PretrainConfig":
        _whole_rows(self.sequence_length, self.tokens_per_step)
        return self


class BuildConfig(Section):
    """A Llama made from scratch, with a byte-level BPE of `vocabulary` tokens learned from `tokenizer_from`."""

    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    key_value_heads: PositiveInt | None = None
    intermediate_size: PositiveInt | None = None
    vocabulary: Quantity
    context: Quantity
    tie_embeddings: bool = True
    tokenizer_from: Names = Field(min_length=1)
    seed: int = 0
    pretrain: PretrainConfig | None = None

    @model_validator(mode="after")
    def _fits(self) -> "BuildConfig":
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError("hidden_size must be an even multiple of heads (rotary embeddings need pairs)")
        if self.key_value_heads and self.heads % self.key_value_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of key_value_heads ({self.key_value_heads})")
        if self.vocabulary < 258:
            raise ValueError(f"vocabulary ({self.vocabulary}) must be at least 258: 256 bytes and two special tokens")
        return self


class ModelConfig(Section):
    """The base: `path` (hub id or folder, there perhaps a GGUF file) or `build`."""

    path: str | None = None
    gguf_file: str | None = None
    trust_remote_code: bool = False
    build: BuildConfig | None = None

    @model_validator(mode="after")
    def _one_model(self) -> "ModelConfig":
        if (self.path is None) == (self.build is None):
            raise ValueError("give either path or build" + (", not both" if self.path is not None else ""))
        if self.gguf_file is not None and self.path is None:
            raise ValueError("gguf_file needs the path of its folder or hub repository")
        return self


class SourceConfig(Section):
    """Records of one file or hub data set; `heldout` and `fisher` are the shares of documents kept from training.

    A source that is `base_only` may be named in `model.build` only: no strategy and no experience learns from it.
    """

    path: Annotated[str, Field(min_length=1)]
    format: Literal["text", "qa", "exam"]
    subset: str | None = None
    split: str = "train"
    text: str = "text"
    question: str = "question"
    answer: str = "answer"
    target: Literal["answer", "answer_then_explanation", "explanation_then_answer"] = "answer"
    answer_as: Literal["letter", "text"] = "letter"
    heldout: Share = 0.05
    fisher: Share = 0.05
    base_only: bool = False

    @model_validator(mode="after")
    def _shares(self) -> "SourceConfig":
        if self.heldout + self.fisher >= 1:
            raise ValueError("heldout and fisher together leave nothing to train on: their sum must be less than 1")
        _only_defaults(self, ("target", "answer_as"), self.format != "exam", "is for the format exam")
        return self


class ExperienceConfig(_Budgeted):
    """One training phase; `budget` says whether replayed tokens come on top (domain) or count as well (total)."""

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
        _only_defaults(self, for_exams, self.perplexity is not None, "is for exams, not for perplexity")
        _only_defaults(self, ("shots_from",), self.benchmark != "cmexam", "is for cmexam: mmlu and cmmlu have dev/")
        if self.benchmark == "cmexam" and self.shots and self.shots_from is None:
            raise ValueError("shots of cmexam need shots_from, a file whose first rows are shown (not the test file)")
        return self


class EvaluationConfig(Section):
    """What is measured before the first and after every experience; a batch has at most `batch_tokens` tokens."""

    gain: list[BenchmarkConfig] = []
    retention: list[BenchmarkConfig] = []
    batch_tokens: Quantity = 16_000


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
        _whole_rows(self.sequence_length, self.tokens_per_step)
        return self


def _strategies(value: Any) -> Any:
    """`strategy:` and `ewc:` with nothing behind them are empty mappings."""
    value = {} if value is None else value
    return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value


class ExperimentConfig(Section):
    """A whole run. No strategy at all means naive training, one experience after the other."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    data_root: Annotated[str, Field(min_length=1)] = "."
    model: ModelConfig
    data: dict[str, SourceConfig]
    stream: list[ExperienceConfig] = Field(min_length=1)
    strategy: Annotated[dict[str, dict[str, Any]], BeforeValidator(_strategies)] = {}
    evaluation: EvaluationConfig
    training: TrainingConfig

    @model_validator(mode="after")
    def _sections_agree(self) -> "ExperimentConfig":
        if found := list(_disagreements(self)):
            raise InvalidSectionsError(found)
        return self


def load(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment in a YAML file with `key=value` overrides; UserError lists all mistakes, one a line."""
    return load_with_places(path, overrides)[0]


def load_with_places(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ExperimentConfig, Places]:
    """As `load`, and where every key was written."""
    tree = yamlfile.read(Path(path), overrides)
    try:
        return ExperimentConfig.model_validate(tree.data), tree.places
    except ValidationError as error:
        raise UserError(describe(problems(error, ExperimentConfig), tree.places)) from None


def dump(config: ExperimentConfig) -> str:
    """YAML with every default written out, which loads again equal."""
    return yamlfile.dump(config.model_dump(mode="json"))


def fingerprint(thing: Any) -> str:
    """16 hex digits of the SHA-256 of a model or plain data. The order of keys does not count, except of strategies."""

    def plain(model: Any) -> Any:
        if not isinstance(model, BaseModel):
            raise TypeError(f"no fingerprint of a {type(model).__name__}")
        data = model.model_dump(mode="json")
        return {**data, "strategy": list(data["strategy"].items())} if isinstance(model, ExperimentConfig) else data

    text = json.dumps(thing, default=plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def data_folder(config: ExperimentConfig) -> Path:
    """`data_root` as a folder; that of the built-in world is made when it is not there yet."""
    from clmed.data import miniworld

    if miniworld.is_miniworld(config.data_root):
        return miniworld.folder(config.data_root)
    return Path(os.path.expanduser(config.data_root))


def resolve(config: ExperimentConfig, path: str) -> Path | None:
    """The local file or folder (perhaps missing) that a data path means; None is a hub id, `owner/name`."""
    local = data_folder(config) / os.path.expanduser(path)
    looks_local = path.startswith((".", "/", "~")) or path.endswith(LOCAL_SUFFIXES) or local.exists()
    return local if looks_local or not _HUB_ID.fullmatch(path) else None


def _only_defaults(section: Section, keys: Sequence[str], when: bool, why: str) -> None:
    for key in keys:
        if when and getattr(section, key) != type(section).model_fields[key].default:
            raise ValueError(f"{key} {why}")


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
    for index, experience in enumerate(config.stream):
        yield from unusable(("stream", index, "data"), experience.data)
        if experience.name in [earlier.name for earlier in config.stream[:index]]:
            yield ("stream", index, "name"), f"another experience has the name '{experience.name}' already"

    labels: set[str] = set()
    for role in ("gain", "retention"):
        for index, benchmark in enumerate(getattr(config.evaluation, role)):
            loc = ("evaluation", role, index)
            source = benchmark.perplexity
            if source is not None:
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
