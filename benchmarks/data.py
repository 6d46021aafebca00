"""Data: tokenising against a bare loop of the library `tokenizers`, and the start of a run over a prepared corpus.

    python benchmarks/data.py [--tokens 100M] [--rounds 3] [--data ../shared/data] [--work FOLDER]

The corpus is real texts (medical answers, exam explanations, encyclopedia, web, instructions), repeated in a shuffled
order until it has the tokens; where the folder of real data is absent, MiniWorld's. The bare loop reads the same JSONL
file, tokenises batches of the same size and writes the token ids to a file: no splits, no labels, no positions. Every
variant runs in a process of its own, taking turns for several rounds; the figures are medians. *Per core* compares
tokens per second of processor time, of all processes together, so that it also says something on a busy machine.

The start is that of a run whose rows are in the cache: from the configuration to the first batch, without importing
libraries and without the model. Prints a Markdown table. 100M tokens take about half an hour on two cores and 2.5 GB of
disk in FOLDER (a temporary one by default); `--tokens 1M --rounds 1` is a trial of a minute.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from clmed.config import SourceConfig
from clmed.quantities import quantity

LENGTH = 1024
CORES = len(os.sched_getaffinity(0))
SOURCE = SourceConfig(path="corpus.jsonl", format="text", heldout=0.0, fisher=0.0)
TEXTS = {
    "medical/cmedqa2.jsonl": ("question", "answer"),
    "general/wikipedia_en.jsonl": ("text",),
    "general/c4_sample.jsonl": ("text",),
    "general/alpaca_zh.jsonl": ("instruction", "output"),
    "general/alpaca_en.jsonl": ("instruction", "output"),
}


def main() -> None:
    """Make the corpus, measure every variant in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=quantity, default=100_000_000, help="of the corpus, about (100M)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, help="a folder for the corpus and its rows, kept")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)  # one variant, in a process of its own
    options = parser.parse_args()
    if options.task:
        print(json.dumps(TASKS[options.task[0]](options.work, *options.task[1:])))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        kind = make_corpus(work, options.tokens, options.data)
        rounds = f"{options.rounds} round{'s' if options.rounds > 1 else ''}"
        print(f"{kind}, {CORES} cores, {rounds}\n\n{tokenising(work, options.rounds)}\n")
        print(starting(work, options.rounds))


# ---------------------------------------------------------------------- the corpus


def make_corpus(work: Path, tokens: int, data: Path) -> str:
    """corpus.jsonl and tokenizer.json in `work`; says what they are made of."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    kind, texts = ("real texts", list(real_texts(data))) if (data / "medical").is_dir() else ("MiniWorld", miniworld())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.save(str(work / "tokenizer.json"))
    once = sum(len(encoding.ids) for encoding in bpe.encode_batch(texts))
    generator = random.Random(0)
    with (work / SOURCE.path).open("w", encoding="utf-8") as file:
        for _ in range(max(1, round(tokens / once))):
            generator.shuffle(texts)
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return f"{kind}, {once * max(1, round(tokens / once)) / 1e6:.1f}M tokens, vocabulary of 16k"


def real_texts(data: Path) -> Iterator[str]:
    """The texts of the folder of real data."""
    for name, columns in TEXTS.items():
        for line in (data / name).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            yield from (record[column] for column in columns if record[column].strip())


def miniworld() -> list[str]:
    """The texts of the built-in world."""
    from clmed.config import resolve
    from clmed.data.rows import document_texts
    from clmed.validation import load

    config = load(Path(__file__).parent.parent / "experiments" / "base.yaml")
    return [
        text
        for name, source in config.data.items()
        for text in document_texts(name, source, resolve(config, source.path), "train")
    ]


# ---------------------------------------------------------------------- one variant each, in a process of its own


def tokenizer(work: Path) -> Any:
    """The corpus's tokenizer as transformers has it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(work / "tokenizer.json"), eos_token="</s>")


def bare(work: Path) -> dict[str, float]:
    """Read, tokenise, write the ids: the loop that anybody would write."""
    import numpy as np
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(work / "tokenizer.json"))
    clock, tokens = Clock(), 0
    with (work / SOURCE.path).open(encoding="utf-8") as lines, (work / "bare.bin").open("wb") as file:
        batch: list[str] = []
        characters = 0
        for line in chain(lines, [""]):
            if line:
                batch.append(json.loads(line)["text"])
                characters += len(batch[-1])
            if characters >= 2**18 or (batch and not line):
                for encoding in backend.encode_batch(batch):
                    tokens += len(encoding.ids)
                    np.array(encoding.ids, dtype=np.int32).tofile(file)
                batch, characters = [], 0
    return clock.read(tokens)


def clmed(work: Path, workers: str) -> dict[str, float]:
    """`prepare` of the whole corpus with an empty cache; it is kept for the start where the folder is."""
    import datasets  # noqa: F401  (the bare loop's libraries are imported before its clock starts, too)

    from clmed.data.rows import counts, prepare

    shutil.rmtree(work / "rows", ignore_errors=True)
    made = tokenizer(work)
    clock = Clock()
    rows = prepare("corpus", SOURCE, work / SOURCE.path, "train", made, LENGTH, cache=work, workers=int(workers))
    return clock.read(counts(rows).tokens)


def start(work: Path) -> dict[str, float]:
    """From the configuration to the first batch, everything prepared."""
    import clmed.training.trainer  # noqa: F401  (what a run imports)
    from clmed.config import ExperienceConfig, OptimizerConfig, TrainingConfig
    from clmed.data.corpus import Corpus
    from clmed.stream import make_scenario

    os.environ["CLMED_CACHE"] = str(work)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    began = time.perf_counter()
    corpus = Corpus(
        sources={"corpus": SOURCE}, paths={"corpus": work / SOURCE.path}, tokenizer=tokenizer(work), length=LENGTH
    )
    experience = ExperienceConfig(name="all", data=["corpus"], epochs=3, optimizer=OptimizerConfig(lr=1e-3))
    training = TrainingConfig(sequence_length=LENGTH, tokens_per_step=16 * LENGTH, micro_batch_size=4)
    stream = make_scenario([experience], training=training, corpus=corpus, strategies=[], seed=0).streams["train"]
    batches = stream[0].batches
    assert batches[0] and batches.trained()[-1]
    return {"seconds": time.perf_counter() - began, "megabytes": memory("VmHWM") - before}


TASKS: dict[str, Any] = {"bare": bare, "clmed": clmed, "start": start}


def memory(key: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) / 1024


class Clock:
    """Seconds and processor seconds (of this process and its children) from its making to its reading."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), processor_seconds()

    def read(self, tokens: int) -> dict[str, float]:
        """What happened since."""
        cpu = processor_seconds() - self.cpu
        return {
            "speed": tokens / (time.perf_counter() - self.wall),
            "per_core": tokens / cpu,
            "megabytes": memory("VmHWM"),
        }


def processor_seconds() -> float:
    """Of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


# ---------------------------------------------------------------------- rounds and tables


def run(work: Path, *task: str, threads: int = 1) -> dict[str, float]:
    """One variant in a new process; `threads` are the tokenizer's own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }
    command = [sys.executable, __file__, "--work", str(work), "--task", *task]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def tokenising(work: Path, rounds: int) -> str:
    """The table of throughput; the rows that the last variant made stay for the start."""
    variants: dict[str, tuple[int, tuple[str, ...], int]] = {"bare loop": (1, ("bare",), 1)}
    if CORES > 1:
        variants[f"bare loop, {CORES} threads of the library"] = (CORES, ("bare",), CORES)
    for number in sorted({1, 2, *range(4, CORES, 4), CORES} & set(range(1, CORES + 1))):
        variants[f"clmed, {number} process{'es' if number > 1 else ''}"] = (number, ("clmed", str(number)), 1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (_, task, threads) in variants.items():
            found[name].append(run(work, *task, threads=threads))
    lines = [
        "| tokenising | tokens/s | to the bare loop | per core | peak memory |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, measured in found.items():
        ratios = [
            statistics.median(one[key] / peer[key] for one, peer in zip(measured, found["bare loop"], strict=True))
            for key in ("speed", "per_core")
        ]
        speed, peak = (statistics.median(one[key] for one in measured) for key in ("speed", "megabytes"))
        lines.append(f"| {name} | {speed:,.0f} | {ratios[0]:.2f} | {ratios[1]:.0%} | {peak:,.0f} MB |")
    return "\n".join(lines)


def starting(work: Path, rounds: int) -> str:
    """The table of the start."""
    measured = [run(work, "start") for _ in range(rounds)]
    seconds, megabytes = (statistics.median(one[key] for one in measured) for key in ("seconds", "megabytes"))
    return "\n".join(
        [
            "| start of a run over the prepared rows | |",
            "|---|---:|",
            f"| to the first batch | {seconds:.2f} s |",
            f"| memory above libraries and model | {megabytes:,.0f} MB |",
        ]
    )


if __name__ == "__main__":
    main()
