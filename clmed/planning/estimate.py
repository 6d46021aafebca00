"""Tokens, FLOPs, memory, disk and time of a configuration on so many GPUs, each by a formula that is stated.

Bytes a GPU holds. P are the model's weights, S those of one shard (FSDP2 cuts each tensor's first dimension among
`shard_ranks`), with those that strategies add; c the bytes of a value as it computes (4 in fp32, else 2), h the width,
i that of the MLP, k that of keys (and values), T the tokens of a micro-batch, s the length of a row, V the vocabulary.
Where strategies freeze weights, gradients, optimizer and copies are multiplied by the share that is trained:

    weights 4 S, gradients 4 S, optimizer 8 S (AdamW's two moments), strategies 4 S for each copy they keep; all of it
      is in the host's memory with cpu_offload
    gathered: c (root + 2 blocks), what FSDP2 has together to compute: the root, a block and the next one
    gradients on their way: (c + 4)(root + block); with accumulation sums not yet reduced: 4 P more with
      `reduce_gradients: step`, else 4 S where copies of the model meet only with the last micro-batch
    activations: T c (9 h + 2 k + 4 i) a block (16-bit: 8 h T more, as norms compute in fp32), kept for every block, or
      with activation checkpointing for one, and c h T a block; T s (1 + c) for the mask that keeps documents apart
    logits: 12 V T (the logits, their log-softmax and its gradient, in fp32), 4 V T more for each that strategies add
    evaluation, in place of activations and logits: c (4 i + 9 h + 2 k) a token of a batch, keys and values of a prefix,
      and where perplexity is measured c V a token of a batch and 4 V s
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clmed import catalogue
from clmed.complaints import did_you_mean
from clmed.config import ExperimentConfig, resolve
from clmed.errors import UserError
from clmed.planning import costs, shapes
from clmed.planning.gpus import Gpu
from clmed.planning.shapes import ModelShape
from clmed.quantities import quantity

BYTES_PER_TOKEN = 4.0  # of a file whose tokens are not given
RESERVE = 0.08  # of a GPU's memory, for CUDA's context, NCCL's buffers and fragmentation
HOURS_PER_FAILURE = 54 * 24 * 16384 / 419  # GPU-hours; Llama 3 (arXiv 2407.21783, 3.3.4): 419 in 54 days on 16,384 GPUs


class SourceTokens(dict[str, float]):
    """Tokens of one pass by source; UserError for a source whose size is not known."""

    def __missing__(self, name: str) -> float:
        raise UserError(f"How many tokens {name} has is not known here: say so with --tokens {name}=250M.")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One experience: tokens of its own data, and whether that is a guess from the sizes of files."""

    name: str
    domain_tokens: float
    guessed: bool


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A configuration on `ranks` GPUs; given: tokens of one pass over a source, by its name."""

    config: ExperimentConfig
    gpu: Gpu
    ranks: int
    utilisation: float
    per_node: int
    write_speed: float  # bytes/s of all ranks together
    given: Mapping[str, int]

    @cached_property
    def shape(self) -> ModelShape:
        return shapes.of(self.config.model)

    def __post_init__(self) -> None:
        for name in self.given:
            if name not in self.config.data:
                raise UserError(f"--tokens {name}: no source '{name}' in data{did_you_mean(name, self.config.data)}")

    # ------------------------------------------------------------------ tokens and FLOPs

    @cached_property
    def source_tokens(self) -> SourceTokens:
        """Tokens of one pass over each source whose size is known: given, or guessed from its file."""
        found = SourceTokens()
        for name, source in self.config.data.items():
            local = resolve(self.config, source.path)
            if name in self.given:
                found[name] = self.given[name]
            elif local is not None and local.is_file():
                found[name] = local.stat().st_size / BYTES_PER_TOKEN * (1 - source.heldout - source.fisher)
        return found

    @cached_property
    def phases(self) -> list[Phase]:
        phases = []
        for index, experience in enumerate(self.config.stream):
            if experience.tokens is not None:
                phases.append(Phase(name=experience.name, domain_tokens=experience.tokens, guessed=False))
                continue
            if unknown := [name for name in experience.data if name not in self.source_tokens]:
                raise UserError(
                    f"stream[{index}] ({experience.name}) counts epochs, and how many tokens {unknown[0]} has is not "
                    f"known here: say so with --tokens {unknown[0]}=250M, or give the experience a budget in tokens."
                )
            tokens = (experience.epochs or 0) * sum(self.source_tokens[name] for name in experience.data)
            guessed = any(name not in self.given for name in experience.data)
            phases.append(Phase(name=experience.name, domain_tokens=tokens, guessed=guessed))
        return phases

    @property
    def domain_tokens(self) -> float:
        return sum(phase.domain_tokens for phase in self.phases)

    @cached_property
    def cost(self) -> costs.Cost:
        """What the strategies add; replay that displaces the domain's tokens (budget: total) adds none."""
        pairs = zip(self.config.stream, self.phases, strict=True)
        on_top = sum(phase.domain_tokens for experience, phase in pairs if experience.budget == "domain")
        training = self.config.training
        earlier: set[str] = set()
        past = 0.0
        for experience in self.config.stream:
            past += sum(self.source_tokens.get(name, 0.0) for name in earlier)
            earlier |= set(experience.data)
        joined = any(catalogue.find(name).declared.joins for name in self.config.strategy)  # nothing comes before
        size = costs.Size(
            experiences=1 if joined else len(self.phases),
            domain_tokens=on_top,
            tokens=self.source_tokens,
            steps=math.ceil(self.domain_tokens / training.tokens_per_step),
            step_tokens=training.tokens_per_step,
            row_tokens=training.sequence_length,
            past=0.0 if joined else past,
            shape=lambda: self.shape,
        )
        return costs.of(self.config.strategy, size)

    @property
    def parameters(self) -> float:
        """The model's weights, with those that strategies add."""
        return self.shape.parameters + self.cost.added

    @property
    def trained(self) -> float:
        """Those that are trained."""
        embeddings = self.shape.vocabulary * self.shape.hidden
        frozen = self.cost.frozen_layers * shapes.numbers(self.shape.block) + self.cost.frozen_embeddings * embeddings
        return min(self.cost.trained, self.parameters - frozen)

    @property
    def tokens(self) -> float:
        return self.domain_tokens + self.cost.tokens if self.cost.trained else 0.0

    @property
    def steps(self) -> int:
        return math.ceil(self.tokens / self.config.training.tokens_per_step)

    @property
    def flops(self) -> float:
        """Of the model: forward and backward of every trained token and of the strategies' rows on every rank, and the
        forward of what they read."""
        length = self.config.training.sequence_length
        forward = self.shape.flops_per_token(length, added=self.cost.added) / 3
        rows = self.cost.rows * self.ranks * length
        return (self.tokens + rows) * self.flops_per_token + self.cost.read * forward

    @property
    def flops_per_token(self) -> float:
        """A weight that is not trained costs 4 and not 6, as it needs no gradient of its own, or 2 at the bottom."""
        share, length = self.trained / self.parameters, self.config.training.sequence_length
        below = self.cost.frozen_layers if self.cost.frozen_embeddings else 0
        return self.shape.flops_per_token(length, added=self.cost.added, trained=share, below=below)

    # ------------------------------------------------------------------ memory of one GPU

    @property
    def micro(self) -> int:
        """Rows of a micro-batch, as the trainer deals them."""
        return min(self.config.training.micro_batch_size, -(-self.rows // self.ranks))

    @property
    def rows(self) -> int:
        return self.config.training.tokens_per_step // self.config.training.sequence_length

    @property
    def accumulation(self) -> int:
        return -(-self.rows // (self.micro * self.ranks))

    @cached_property
    def state(self) -> dict[str, float]:
        """Bytes of a rank that stay: this is what a checkpoint holds, but for the gradients."""
        ranks = min(self.config.training.shard_ranks or self.ranks, self.ranks)
        shard = 4.0 * (self.shape.shard(ranks) + self.cost.added / ranks)
        trained = shard * self.trained / self.parameters
        state = {"weights": shard, "gradients": trained, "optimizer": 2 * trained}
        return state | ({"strategies": self.cost.copies * trained} if self.cost.copies else {})

    @property
    def _width(self) -> int:
        return 4 if self.config.training.precision == "fp32" else 2

    @cached_property
    def gathering(self) -> dict[str, float]:
        """Bytes for what FSDP2 gathers and reduces."""
        training, shape, c = self.config.training, self.shape, self._width
        asked = training.sharding == "full" or training.cpu_offload or training.shard_ranks is not None
        if training.sharding == "none" or not (asked or self.ranks > 1 or c == 2):
            return {}
        block, root = (shapes.numbers(tensors) for tensors in (shape.block, shape.root))
        share = self.trained / self.parameters
        found = {
            "gathered weights": c * (root + 2.0 * block),
            "gradients on their way": share * (c + 4.0) * (root + block),
        }
        return found | ({"unreduced sums": self._unreduced} if self.accumulation > 1 and self._unreduced else {})

    @property
    def _unreduced(self) -> float:
        """Bytes of the sums over micro-batches that are not reduced before the last one."""
        if self.config.training.reduce_gradients == "step":
            return 4.0 * self.trained
        shards = self.config.training.shard_ranks
        share = self.trained / self.parameters
        return 4.0 * share * self.shape.shard(shards) if shards and shards < self.ranks else 0.0

    def _block_values(self) -> float:
        """Values that one block keeps for its backward, per token."""
        shape = self.shape
        keys = shape.key_value_heads * shape.head_width
        return 9.0 * shape.hidden + 2.0 * keys + 4.0 * shape.intermediate

    def activations(self, checkpointing: bool) -> float:
        """Bytes that a micro-batch's forward keeps for its backward, without logits."""
        shape, c, length = self.shape, self._width, self.config.training.sequence_length
        tokens = self.micro * length
        block = tokens * (c * self._block_values() + (8.0 * shape.hidden if c == 2 else 0.0))
        mask = tokens * length * (1.0 + c)
        if checkpointing:
            return block + mask + c * shape.hidden * tokens * shape.layers
        return block * shape.layers + mask

    @cached_property
    def training(self) -> dict[str, float]:
        """Bytes of a step beside the state."""
        tokens = self.micro * self.config.training.sequence_length
        kept = self.activations(self.config.training.activation_checkpointing)
        each = 12.0 + 4.0 * self.cost.logits
        more = {"further gradients": self.cost.gradients * self.state["gradients"]} if self.cost.gradients else {}
        return {**self.gathering, "activations": kept, "logits": each * self.shape.vocabulary * tokens, **more}

    @cached_property
    def evaluation(self) -> dict[str, float]:
        """Bytes of a measurement beside the state."""
        shape, c, length = self.shape, self._width, self.config.training.sequence_length
        measured = [*self.config.evaluation.gain, *self.config.evaluation.retention]
        if not measured:
            return {}
        batch = self.config.evaluation.batch_tokens
        cache = 2.0 * shape.layers * shape.key_value_heads * shape.head_width * c * min(batch, length)
        found = {"evaluation batch": batch * c * self._block_values(), "evaluation cache": cache}
        if any(benchmark.perplexity is not None for benchmark in measured):
            found["evaluation logits"] = shape.vocabulary * (c * batch + 4.0 * length)
        gathered = {name: value for name, value in self.gathering.items() if name == "gathered weights"}
        return gathered | found

    @property
    def peak(self) -> float:
        """Bytes of the fuller of the two moments, a step and a measurement."""
        state = 0.0 if self.config.training.cpu_offload else sum(self.state.values())
        return state + max(sum(self.training.values()), sum(self.evaluation.values()))

    @property
    def room(self) -> float:
        """Bytes of a GPU that a run may fill."""
        return (1 - RESERVE) * self.gpu.memory * 2**30

    @property
    def supported(self) -> bool:
        """Whether the GPU computes in the configured precision."""
        return self.config.training.precision in self.gpu.peaks

    @property
    def fits(self) -> bool:
        return self.supported and self.peak <= self.room

    # ------------------------------------------------------------------ host, disk, time

    @property
    def kept(self) -> float:
        """Bytes of a rank's copy of its part of a checkpoint."""
        return sum(value for name, value in self.state.items() if name != "gradients")

    @property
    def host(self) -> float:
        """Bytes of a node's memory while its ranks' parts of a checkpoint are written in the background."""
        offloaded = sum(self.state.values()) if self.config.training.cpu_offload else 0.0
        return (self.kept + offloaded) * min(self.per_node, self.ranks)

    @property
    def checkpoint(self) -> float:
        return 4.0 * (self.parameters + self.trained * (2 + self.cost.copies))

    @property
    def disk(self) -> float:
        """Bytes of all checkpoints, the final model, rows (12 bytes a token), and what strategies keep in the cache."""
        rows = 12.0 * sum(self.source_tokens.values())
        return self.checkpoint * self.checkpoints + 4.0 * self.shape.parameters + rows + self.cached

    @property
    def cached(self) -> float:
        """Bytes that strategies keep in the cache."""
        return self.cost.disk + 4.0 * self.shape.parameters * self.cost.cached

    @property
    def checkpoints(self) -> int:
        """The most that are on disk at once: the newest, those that stay for good, and the one being written."""
        training = self.config.training
        ends = len(self.phases) if training.share_experiences else 0
        inside = sum(len(each.measure_at) for each in self.config.stream) if training.keep_measured else 0
        return training.checkpoints_kept + len(training.keep_at) + inside + ends + 1

    @property
    def seconds(self) -> float:
        """Of training alone, at the utilisation of the peak; activation checkpointing computes each forward twice."""
        again = 4 / 3 if self.config.training.activation_checkpointing else 1.0
        peak = self.gpu.peaks.get(self.config.training.precision, math.nan)
        return self.flops * again / (self.ranks * peak * self.utilisation)

    @property
    def energy(self) -> float:
        """kWh of the GPUs at their limit; nodes and cooling come on top."""
        return self.seconds * self.ranks * self.gpu.watts / 3.6e6

    @property
    def writing(self) -> float:
        """Seconds to write a checkpoint."""
        return self.checkpoint / self.write_speed

    @property
    def interval(self) -> float:
        """Seconds between checkpoints that lose least to writing and to failures.

        Source: Daly, 2006, "A higher order estimate of the optimum checkpoint interval", eq. 37; its first term is
        Young's, 1974.
        """
        failure = HOURS_PER_FAILURE * 3600 / self.ranks
        ratio = self.writing / (2 * failure)
        if ratio >= 1:
            return failure
        return math.sqrt(2 * self.writing * failure) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - self.writing

    @property
    def save_every(self) -> int:
        """The interval in steps."""
        return max(1, round(self.interval / (self.seconds / self.steps))) if self.steps else 1

    @property
    def free_disk(self) -> float:
        """Bytes free where runs are written from here."""
        return float(shutil.disk_usage(Path.cwd()).free)


def source_sizes(given: Sequence[str]) -> dict[str, int]:
    """["wiki=250M"] -> {"wiki": 250000000}; UserError for anything else."""
    found = {}
    for item in given:
        name, equals, amount = item.partition("=")
        if not name or not equals:
            raise UserError(f"--tokens {item}: write SOURCE=N, such as wiki=250M.")
        try:
            found[name] = quantity(amount)
        except ValueError as error:
            raise UserError(f"--tokens {item}: the number of tokens {error}.") from None
    return found
