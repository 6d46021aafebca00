"""Training speed and memory: clmed's trainer against a bare PyTorch loop and transformers.Trainer on the same rows.

    OMP_NUM_THREADS=1 python benchmarks/training.py [--rounds 6]

All train the same Llama on rows of MiniWorld; the peers find their batches ready in memory. The variants take turns,
each in a process of its own from fresh weights. Prints a Markdown table. What the strategies cost: strategies.py.
"""

import argparse
import os
import time
from functools import partial
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as `clmed run` sets it

import torch
from measure import Pass, Variants, conditions, markdown, megabytes, ratio, speed, take_turns
from torch.nn.functional import cross_entropy, pad
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments

from clmed.config import ExperimentConfig
from clmed.data.batches import Batch
from clmed.data.corpus import Corpus
from clmed.data.packing import IGNORED
from clmed.strategy import make_strategies
from clmed.stream import make_scenario
from clmed.training.model import load_tokenizer, new_model
from clmed.training.schedule import learning_rate
from clmed.training.sharding import World
from clmed.training.trainer import ContinualTrainer
from clmed.validation import load

SHAPE = ["model.build.hidden_size=256", "model.build.layers=6", "model.build.intermediate_size=688"]
SIZES = ["stream.0.data=medical_texts", "stream.0.tokens=20k", "stream.0.measure_at=[]", "training.micro_batch_size=8"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    config = load("experiments/naive.yaml", [*SHAPE, *SIZES])
    tokenizer = load_tokenizer(config)
    variants: dict[str, Any] = {
        "bare PyTorch loop": partial(bare, config, tokenizer),
        "transformers.Trainer": partial(huggingface, config, tokenizer),
        "clmed": partial(trained, config, tokenizer),
    }
    print(table(variants, options.rounds))


def prepared(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    """(model, corpus, strategies, the first experience), all fresh."""
    assert config.model.build is not None
    corpus = Corpus.of(config, tokenizer, config.training.sequence_length)
    strategies = make_strategies(config)
    arguments: dict[str, Any] = {"training": config.training, "corpus": corpus, "strategies": strategies, "seed": 0}
    scenario = make_scenario(config.stream[:1], **arguments)
    return new_model(config.model.build, tokenizer), corpus, strategies, scenario.streams["train"][0]


def amounts(experience: Any) -> dict[str, float]:
    """Positions (padding included) and tokens of an experience."""
    counts = experience.batches.mixture.counts
    return {"positions": float(counts.sum()) * 128, "tokens": float(experience.batches.trained()[-1])}


def trained(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase) -> Pass:
    """clmed's trainer."""
    model, corpus, strategies, experience = prepared(config, tokenizer)
    clock = StepClock()
    trainer = ContinualTrainer(model=model, world=World(), corpus=corpus, strategies=strategies, watchers=[clock])
    trainer.train([experience])
    return Pass(done=amounts(experience), seconds=clock.seconds)


class StepClock:
    """Time from the first step's beginning to the last one's end."""

    supports_distributed = True

    def before_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def after_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def bare(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase) -> Pass:
    """The loop that anybody would write for this model and these batches."""
    model, _, _, experience = prepared(config, tokenizer)
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
    return Pass(done=amounts(experience), seconds=time.perf_counter() - start)


def loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """The same loss as the trainer's."""
    output = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
    targets = pad(batch["labels"][:, 1:], (0, 1), value=IGNORED).flatten()
    losses = cross_entropy(output.logits.flatten(0, 1).float(), targets, reduction="none", ignore_index=IGNORED)
    return (losses.view(len(batch["weight"]), -1).sum(dim=1) * batch["weight"]).sum()


def huggingface(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase) -> Pass:
    """transformers.Trainer on the same rows in the same micro-batches."""
    model, _, _, experience = prepared(config, tokenizer)
    model.config.use_cache = False
    windows = [experience.batches[step] for step in range(len(experience.batches))]
    keys = ("input_ids", "position_ids", "labels")
    rows = [{key: batch[key][row] for key in keys} for window in windows for batch in window for row in range(8)]
    settings = config.stream[0].optimizer
    arguments = TrainingArguments(
        output_dir="/tmp/clmed-benchmark",
        max_steps=len(windows),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=len(windows[0]),
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        adam_beta2=settings.betas[1],
        max_grad_norm=settings.clip,
        train_sampling_strategy="sequential",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    return Pass(done=amounts(experience), seconds=time.perf_counter() - start)


def table(variants: Variants, rounds: int) -> str:
    """Speeds by positions (padding too, as it costs the same), and the peak of memory above what was imported."""
    found = take_turns(variants, rounds)
    loop = found["bare PyTorch loop"]
    rows = [
        [
            name,
            f"{speed(passes, 'positions'):,.0f}",
            f"{speed(passes, 'tokens'):,.0f}",
            f"{ratio(passes, loop, 'positions'):.1%}",
            f"{megabytes(passes):,.0f}",
            f"{megabytes(passes) / megabytes(loop):.2f}",
        ]
        for name, passes in found.items()
    ]
    header = ["variant", "positions/s", "tokens/s", "to the bare loop", "peak MB", "peak to the loop's"]
    return f"{conditions(rounds)}\n\n{markdown(header, rows)}"


if __name__ == "__main__":
    main()
