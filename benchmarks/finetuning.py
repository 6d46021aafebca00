"""Fine-tuning on examples of very different lengths: clmed's packed rows against transformers.Trainer's padded batches.

    OMP_NUM_THREADS=1 python benchmarks/finetuning.py --data FOLDER [--examples 160] [--rounds 3]

The same CMExam questions with their explanations (FOLDER/cmexam/train.csv), one pass, the same Llama, about the same
tokens an update: 16 examples in a padded batch, or four rows with as many tokens. Trainer pads each batch to its
longest example, in random order and with its sampler that groups examples by length. Prints a Markdown table.
"""

import argparse
import csv
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as `clmed run` sets it

import numpy as np
from measure import Pass, conditions, markdown, megabytes, ratio, speed, take_turns
from training import StepClock
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments

from clmed.config import ExperimentConfig
from clmed.data import formats
from clmed.data.corpus import Corpus
from clmed.data.packing import IGNORED
from clmed.data.sources import records
from clmed.data.tokenising import Document, encode
from clmed.stream import make_scenario
from clmed.training.model import load_tokenizer, new_model
from clmed.training.sharding import World
from clmed.training.trainer import ContinualTrainer
from clmed.validation import load

BATCH, ROWS = 16, 4  # examples in a padded batch, rows of a step
SHAPE = [f"model.build.{size}" for size in ("hidden_size=256", "layers=6", "heads=4", "intermediate_size=688")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few.csv"
        _head(options.data / "cmexam" / "train.csv", few, options.examples)
        config, tokenizer, lengths = prepared(options.data, few)
        variants: dict[str, Any] = {
            "transformers.Trainer, random order": partial(padded, config, tokenizer, few, "random"),
            "transformers.Trainer, grouped by length": partial(padded, config, tokenizer, few, "group_by_length"),
            "clmed, packed rows": partial(packed, config, tokenizer, len(lengths)),
        }
        found = take_turns(variants, options.rounds)
    peer = found["transformers.Trainer, random order"]
    rows = [
        [
            name,
            f"{speed(passes, 'examples'):.2f}",
            f"{ratio(passes, peer, 'examples'):.2f}",
            f"{passes[0].done['positions'] / passes[0].done['tokens']:.2f}",
            f"{passes[0].done['updates']:.0f}",
            f"{megabytes(passes):,.0f}",
        ]
        for name, passes in found.items()
    ]
    header = ["variant", "examples/s", "to Trainer, random", "positions a token", "updates", "peak MB"]
    print(f"{conditions(options.rounds)} {len(lengths)} examples of {np.mean(lengths):.0f} tokens in the mean, rows of")
    print(f"{config.training.sequence_length} (what is longer is cut for all).\n\n{markdown(header, rows)}")


def _head(table: Path, few: Path, rows: int) -> None:
    with table.open(encoding="utf-8", newline="") as source, few.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        for number, cells in enumerate(csv.reader(source)):
            if number <= rows:
                writer.writerow(cells)


def prepared(data: Path, few: Path) -> tuple[ExperimentConfig, PreTrainedTokenizerBase, list[int]]:
    """The configuration whose rows are four to a mean batch, the tokenizer, and the examples' lengths in tokens."""

    def configured(length: int) -> ExperimentConfig:
        source = f"data.exam={{path: {few}, format: exam, target: answer_then_explanation, heldout: 0, fisher: 0}}"
        stream = "stream=[{name: tuning, data: exam, epochs: 1, optimizer: {lr: 1.0e-3}}]"
        sizes = f"training={{sequence_length: {length}, tokens_per_step: {ROWS * length}, micro_batch_size: {ROWS}}}"
        return load("experiments/real-data.yaml", [f"data_root={data}", *SHAPE, source, stream, sizes])

    config = configured(1024)
    tokenizer = load_tokenizer(config)
    lengths = [len(document) for document in documents(config, tokenizer, few)]
    return configured(round(BATCH * float(np.mean(lengths)) / ROWS)), tokenizer, lengths


def documents(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, few: Path) -> list[Document]:
    """The examples as clmed tokenises them."""
    source = config.data["exam"]
    texts = [formats.texts(source, record) for _, record in records(source, few)]
    return encode([text for text in texts if text], tokenizer)


def packed(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, examples: int) -> Pass:
    """clmed's trainer on packed rows, all examples once."""
    assert config.model.build is not None
    corpus = Corpus.of(config, tokenizer, config.training.sequence_length)
    scenario = make_scenario(config.stream, training=config.training, corpus=corpus, strategies=[], seed=0)
    experience, clock = scenario.streams["train"][0], StepClock()
    trainer = ContinualTrainer(
        model=new_model(config.model.build, tokenizer), world=World(), corpus=corpus, watchers=[clock]
    )
    trainer.train([experience])
    batches = experience.batches
    positions = int(batches.mixture.counts.sum()) * corpus.length
    done = {"examples": examples, "positions": positions, "tokens": trainer.all_tokens}
    return Pass(done={**done, "updates": len(batches)}, seconds=clock.seconds)


def padded(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, few: Path, order: str) -> Pass:
    """transformers.Trainer on the same examples, cut where clmed cuts them."""
    assert config.model.build is not None
    model = new_model(config.model.build, tokenizer)
    model.config.use_cache = False
    examples = [document[: config.training.sequence_length] for document in documents(config, tokenizer, few)]
    rows = [
        {"input_ids": e.ids.tolist(), "labels": np.where(e.supervised, e.ids, IGNORED).tolist(), "length": len(e)}
        for e in examples
    ]
    positions: list[int] = []
    collate = DataCollatorForSeq2Seq(tokenizer)

    def counted(features: list[dict[str, Any]]) -> Any:
        batch = collate([{key: feature[key] for key in ("input_ids", "labels")} for feature in features])
        positions.append(batch["input_ids"].numel())
        return batch

    settings = config.stream[0].optimizer
    arguments = TrainingArguments(
        output_dir=str(few.parent / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=settings.lr,
        lr_scheduler_type="cosine",
        max_grad_norm=settings.clip,
        train_sampling_strategy=order,
        remove_unused_columns=False,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=counted)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    done = {"examples": len(rows), "positions": sum(positions), "tokens": sum(map(len, examples))}
    return Pass(done={**done, "updates": trainer.state.global_step}, seconds=seconds)


if __name__ == "__main__":
    main()
