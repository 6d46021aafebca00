"""`model`: where the base comes from."""

from pydantic import Field, model_validator

from clmed.config.sections import Budgeted, Names, PositiveInt, Section, Seed, whole_rows
from clmed.config.training import OptimizerConfig
from clmed.quantities import Quantity


class PretrainConfig(Budgeted):
    """How the made base learns before the stream; its sizes are its own, so that the run's do not change the base."""

    data: Names = Field(min_length=1)
    sequence_length: Quantity
    tokens_per_step: Quantity
    micro_batch_size: PositiveInt = 8
    optimizer: OptimizerConfig

    @model_validator(mode="after")
    def _rows(self) -> "PretrainConfig":
        whole_rows(self.sequence_length, self.tokens_per_step)
        if self.optimizer.state == "carry":
            raise ValueError("optimizer.state: nothing comes before the pretraining from which to carry it")
        return self


class BuildConfig(Section):
    """A Llama made from scratch, with a byte-level BPE of `vocabulary` tokens learned from `tokenizer_from`.

    Vectors have `hidden_size` numbers, inside the feed-forward part `intermediate_size`; `context` is the longest row
    in tokens. `tie_embeddings`: one matrix for input and output. `seed` is that of the first weights, which
    `pretrain` then teaches.
    """

    hidden_size: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    key_value_heads: PositiveInt | None = None
    intermediate_size: PositiveInt | None = None
    vocabulary: Quantity
    context: Quantity
    tie_embeddings: bool = True
    tokenizer_from: Names = Field(min_length=1)
    seed: Seed = 0
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
