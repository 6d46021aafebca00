"""What every strategy costs, against naive training in one run: the table of docs/results/strategies.md.

    make strategy-costs           (or: OMP_NUM_THREADS=1 python benchmarks/strategies.py [--rounds 3] [--only lora ewc])

The settings are those of the experiment files, on the first experience of MiniWorld, for a Llama of 5M parameters. The
strategies take turns, each in a process of its own from fresh weights, on an otherwise idle machine.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as `clmed run` sets it

import torch
from measure import Pass, conditions, markdown, megabytes, ratio, take_turns, write_part
from miniworld_records import EXPERIMENTS, ROOT, methods
from training import SHAPE, SIZES, StepClock, prepared
from transformers import PreTrainedTokenizerBase

from clmed.config import ExperimentConfig, load
from clmed.training.model import load_tokenizer
from clmed.training.sharding import World
from clmed.training.structure import Structure
from clmed.training.trainer import ContinualTrainer

PAGE = ROOT / "docs" / "results" / "strategies.md"
# Trains nothing; and what costs in a first experience what another does.
NOT_HERE = {"frozen", "interleave-priority", "replay-surprise"}
STEPS = ["stream.0.tokens=8k"]
# Settings of a method that cost something else; and less to write or to read, or it would take longer than all others.
BESIDE = {"distill, stored": ("distill", ["strategy.distill.teacher=stored"])}
LESS = {"self_synthesis": ["strategy.self_synthesis.rows=20"], "joint": ["strategy.joint.general_epochs=0.1"]}


def main() -> None:
    """Measure, and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="experiment files beside naive; prints the table and writes nothing")
    options = parser.parse_args()
    files = options.only or [file for file in methods() if file not in NOT_HERE]
    asked = {
        "naive": ("naive", []),
        **{file: (file, LESS.get(file, [])) for file in files},
        **({} if options.only else BESIDE),
    }
    configs = {
        name: load(EXPERIMENTS / f"{file}.yaml", [*SHAPE, *SIZES, *STEPS, *more])
        for name, (file, more) in asked.items()
    }
    tokenizer = load_tokenizer(configs["naive"])
    found = take_turns({name: partial(trained, each, tokenizer) for name, each in configs.items()}, options.rounds)
    made = f"{conditions(options.rounds)}\n\n{table(found)}"
    print(made)
    if not options.only:
        write_part(PAGE, "costs", made)


class Meter(StepClock):
    """The FLOPs when the steps begin and when they end, beside the time."""

    def before_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.before = trainer.flops
        super().before_training_epoch(trainer, **kwargs)

    def after_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        super().after_training_epoch(trainer, **kwargs)
        self.after = trainer.flops


def trained(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase) -> Pass:
    """One experience. done: its steps; their FLOPs; what is computed outside them, as tokens run forward, and its time;
    tokens trained to the domain's; what a checkpoint keeps for the strategy, in fp32 copies of the weights."""
    model, corpus, strategies, experience = prepared(config, tokenizer)
    copy = 4 * model.num_parameters()
    for name in config.data:  # so that no text is tokenised below, in the empty cache
        corpus.rows(name), corpus.rows(name, "fisher")
    meter, world = Meter(), World()
    structure = Structure(model, strategies, world, config.training)
    arguments: dict[str, Any] = {"corpus": corpus, "strategies": strategies, "structure": structure}
    trainer = ContinualTrainer(model=model, world=world, watchers=[meter], **arguments)
    with tempfile.TemporaryDirectory() as cache:  # or what is made once would be there in the second round
        os.environ["CLMED_CACHE"] = cache
        start = time.perf_counter()
        trainer.train([experience])
        whole = time.perf_counter() - start
    batches = experience.batches
    done = {
        "steps": float(len(batches)),
        "flops": meter.after - meter.before,
        "outside": 3 * (trainer.flops - meter.after + meter.before) / trainer.flops_per_token,
        "seconds outside": whole - meter.seconds,
        "tokens": float(batches.trained()[-1] / batches.trained(domain_only=True)[-1]),
        "state": size([strategy.state_dict() for strategy in strategies]) / copy,
    }
    return Pass(done=done, seconds=meter.seconds)


def size(state: Any) -> int:
    """Bytes of all tensors in it."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(size, state.values()))
    return sum(map(size, state)) if isinstance(state, list | tuple) else 0


def table(found: Mapping[str, Sequence[Pass]]) -> str:
    """Markdown. Step times and FLOPs are those of the same round to naive's."""
    naive = found["naive"]
    base = naive[0].done
    rows = []
    for name, passes in found.items():
        done = passes[0].done  # as in every round, but for the seconds
        outside = sorted(each.done["seconds outside"] for each in passes)[len(passes) // 2]
        rows.append(
            [
                name,
                f"{1 / ratio(passes, naive, 'steps'):.2f}",
                f"{done['flops'] / done['steps'] / (base['flops'] / base['steps']):.2f}",
                f"{megabytes(passes):,.0f}",
                f"{megabytes(passes) / megabytes(naive):.2f}",
                f"{done['state']:.2f}",
                f"{done['tokens']:.2f}",
                f"{done['outside']:,.0f}",
                f"{outside:.1f}",
            ]
        )
    header = ["strategy", "step time", "step FLOPs", "peak MB", "peak memory", "state", "tokens trained"]
    return markdown([*header, "tokens read outside steps", "seconds outside steps"], rows)


if __name__ == "__main__":
    main()
