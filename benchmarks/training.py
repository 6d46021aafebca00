"""Training speed: clmed's trainer against a bare PyTorch loop, and each strategy against naive, in one run.

    python benchmarks/training.py [--rounds 6] [--threads 1]

All train the same Llama on the same rows of MiniWorld (the bare loop finds its batches ready in memory). The variants
take turns for several rounds, each from fresh weights; the figures are medians over the rounds, so that what else the
machine does hits all alike. Prints a Markdown table.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as `clmed run` sets it

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from clmed.config import ExperimentConfig
from clmed.data.corpus import Corpus
from clmed.data.packing import IGNORED
from clmed.experiment import make_strategies
from clmed.stream import make_scenario
from clmed.training.model import load_tokenizer, new_model
from clmed.training.schedule import learning_rate
from clmed.training.sharding import World
from clmed.training.trainer import ContinualTrainer
from clmed.validation import load

GENERAL = ["english_texts", "english_qa", "chinese_texts", "chinese_qa"]
STRATEGIES: dict[str, dict[str, Any]] = {
    "naive": {},
    "replay": {"replay": {"ratio": 0.25, "from": GENERAL}},
    "interleave": {"interleave": {"every": 4, "from": GENERAL}},
    "ewc": {"ewc": {"fisher_from": GENERAL}},
}
SHAPE = ["model.build.hidden_size=256", "model.build.layers=6", "model.build.intermediate_size=688"]
SIZES = ["stream.0.tokens=12k", "stream.0.measure_at=[]", "training.micro_batch_size=8"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = load("experiments/base.yaml", [*SHAPE, *SIZES])
    tokenizer = load_tokenizer(config)
    variants: dict[str, Callable[[], tuple[int, float]]] = {"bare PyTorch loop": partial(bare, config, tokenizer)}
    for name, strategy in STRATEGIES.items():
        variants[f"clmed, {name}"] = partial(trained, config, tokenizer, strategy)
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, run in variants.items():
            tokens, seconds = run()
            speeds[name].append(tokens / seconds)
    print(table(speeds, options))


def prepared(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, given: dict[str, Any]) -> Any:
    """(model, corpus, strategies, experience), all fresh."""
    assert config.model.build is not None
    corpus = Corpus.of(config, tokenizer, config.training.sequence_length)
    strategies = make_strategies(config.model_copy(update={"strategy": given}))
    scenario = make_scenario(config.stream[:1], training=config.training, corpus=corpus, strategies=strategies, seed=0)
    return new_model(config.model.build, tokenizer), corpus, strategies, scenario.streams["train"][0]


def trained(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, given: dict[str, Any]) -> tuple[int, float]:
    """Tokens and seconds of clmed's trainer; what a strategy does before the first step is not counted."""
    model, corpus, strategies, experience = prepared(config, tokenizer, given)
    clock = StepClock()
    trainer = ContinualTrainer(model=model, world=World(), corpus=corpus, strategies=strategies, watchers=[clock])
    trainer.train([experience])
    return trainer.all_tokens, clock.seconds


class StepClock:
    """Time from the first step's beginning to the last one's end."""

    supports_distributed = True

    def before_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def after_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def bare(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, float]:
    """Tokens and seconds of the loop that anybody would write for this model and these batches."""
    model, _, _, experience = prepared(config, tokenizer, {})
    windows = [experience.batches[step] for step in range(len(experience.batches))]
    model.train()
    settings = config.stream[0].optimizer
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=settings.betas, fused=True)
    start = time.perf_counter()
    for step, window in enumerate(windows):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(windows), settings)
        optimizer.zero_grad()
        for batch in window:
            loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    return int(experience.batches.trained()[-1]), time.perf_counter() - start


def loss(model: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same loss as the trainer's."""
    output = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
    targets = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
    losses = cross_entropy(output.logits.flatten(0, 1).float(), targets, reduction="none", ignore_index=IGNORED)
    return (losses.view(len(batch["weight"]), -1).sum(dim=1) * batch["weight"]).sum()


def table(speeds: dict[str, list[float]], options: argparse.Namespace) -> str:
    """Median speeds, and the medians of the ratios within a round."""
    lines = [
        f"{options.rounds} rounds, {options.threads} thread(s), {os.cpu_count()} cores, torch {torch.__version__}",
        "",
        "| variant | tokens/s | to the bare loop | to naive |",
        "|---|---:|---:|---:|",
    ]
    for name, found in speeds.items():
        ratios = [
            statistics.median(one / other for one, other in zip(found, speeds[peer], strict=True))
            for peer in ("bare PyTorch loop", "clmed, naive")
        ]
        lines.append(f"| {name} | {statistics.median(found):,.0f} | {ratios[0]:.1%} | {ratios[1]:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
