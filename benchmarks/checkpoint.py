"""What checkpoints cost: the pause of an asynchronous save to that of a synchronous one, and the time to go on.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint.py [--rounds 5] [--folder .]

A Llama is trained without saves and with one in every eight steps, both ways; the variants take turns in one run, each
in a process of its own. The pause is the time that a save keeps the trainer from its next step. What a save costs in
all is how much longer the steps took with saves than without in the same round: on one core the writing thread slows
the steps beside it. Prints a Markdown table.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as `clmed run` sets it

from measure import Pass, conditions, markdown, megabytes, take_turns
from transformers import PreTrainedTokenizerBase

from clmed.config import ExperimentConfig
from clmed.data.corpus import Corpus
from clmed.stream import make_scenario
from clmed.training.checkpoint import Checkpoints
from clmed.training.model import load_tokenizer, new_model
from clmed.training.resume import go_on
from clmed.training.sharding import World
from clmed.training.trainer import ContinualTrainer
from clmed.validation import load

SHAPE = ["model.build.hidden_size=256", "model.build.layers=8", "model.build.intermediate_size=688"]
SIZES = ["stream.0.data=medical_texts", "stream.0.measure_at=[]", "training.micro_batch_size=8", "training.threads=1"]
EVERY = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", default="50k", help="trained in each variant of each round")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the checkpoints are written")
    options = parser.parse_args()
    config = load("experiments/base.yaml", [*SHAPE, *SIZES, f"stream.0.tokens={options.tokens}"])
    tokenizer = load_tokenizer(config)
    ways: dict[str, bool | None] = {"no saves": None, "synchronous": False, "asynchronous": True}
    variants = {name: partial(trained, config, tokenizer, options.folder, way) for name, way in ways.items()}
    found = take_turns(variants, options.rounds)
    print(table(found, options.rounds))


class Watch:
    """Seconds of all steps, and of those the seconds that the saves kept the trainer waiting."""

    supports_distributed = True

    def __init__(self, trainer: ContinualTrainer) -> None:
        self.pauses: list[float] = []
        self.save, trainer.save = trainer.save, self.timed  # type: ignore[method-assign]

    def timed(self, **arguments: Any) -> None:
        start = time.perf_counter()
        self.save(**arguments)
        self.pauses.append(time.perf_counter() - start)

    def before_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def after_training_epoch(self, trainer: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def trained(config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, folder: Path, way: bool | None) -> Pass:
    """One training of the first experience, saved in that way (None: not at all), and the going on from its end."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        trainer, stream = prepared(config, tokenizer, Path(place), way)
        watch = Watch(trainer)
        trainer.plugins.insert(0, watch)
        trainer.train(stream)
        inside = watch.pauses[:-1]  # the last is after the experience's last step
        done = {"steps": len(stream[0].batches), "saves": len(inside), "pause": sum(inside)}
        if way is not None:
            trainer, stream = prepared(config, tokenizer, Path(place), way)
            trainer.experiences = stream
            done |= resumed(trainer, stream)
        return Pass(done=done, seconds=watch.seconds)


def prepared(
    config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, folder: Path, way: bool | None
) -> tuple[ContinualTrainer, Any]:
    """A fresh trainer and its stream."""
    assert config.model.build is not None
    corpus = Corpus.of(config, tokenizer, config.training.sequence_length)
    scenario = make_scenario(config.stream[:1], training=config.training, corpus=corpus, strategies=[], seed=0)
    checkpoints = None if way is None else Checkpoints(folder, world=World(), keep=9, asynchronous=way)
    model = new_model(config.model.build, tokenizer)
    trainer = ContinualTrainer(model=model, world=World(), corpus=corpus, checkpoints=checkpoints, save_every=EVERY)
    return trainer, scenario.streams["train"]


def resumed(trainer: ContinualTrainer, stream: Any) -> dict[str, float]:
    """Seconds to find and verify the newest checkpoint inside the experience, and to load it, optimizer and all."""
    assert trainer.checkpoints is not None
    folder = trainer.checkpoints.folder
    (end,) = folder.glob("*-1")
    end.rename(folder / "the-end")
    start = time.perf_counter()
    found = trainer.checkpoints.latest()
    verified = time.perf_counter()
    assert found is not None and found.values["place"]["first_step"]
    go_on(trainer, stream, found)
    return {"verify": verified - start, "load": time.perf_counter() - verified}


def table(found: dict[str, list[Pass]], rounds: int) -> str:
    """Medians of the rounds; ratios are taken within a round."""
    bare, plain = found["no saves"], found["synchronous"]
    step = statistics.median(each.seconds / each.done["steps"] for each in bare)
    rows = []
    for name in ("synchronous", "asynchronous"):
        passes = found[name]
        pauses, costs = [pause(each) for each in passes], [cost(*pair) for pair in zip(passes, bare, strict=True)]
        plain_costs = [cost(*pair) for pair in zip(plain, bare, strict=True)]
        rows.append(
            [
                f"{name} save, the pause",
                f"{1000 * statistics.median(pauses):,.0f} ms",
                f"{statistics.median(pauses) / step:.2f}",
                f"{ratio(pauses, [pause(each) for each in plain]):.1%}",
            ]
        )
        rows.append(
            [
                f"{name} save, all it costs",
                f"{1000 * statistics.median(costs):,.0f} ms",
                f"{statistics.median(costs) / step:.2f}",
                f"{ratio(costs, plain_costs):.1%}",
            ]
        )
    for key, what in (("verify", "going on: checksums of the newest checkpoint"), ("load", "going on: loading it")):
        seconds = [each.done[key] for each in plain]
        to_save = ratio(seconds, [pause(each) for each in plain])
        median = statistics.median(seconds)
        rows.append([what, f"{1000 * median:,.0f} ms", f"{median / step:.2f}", f"{to_save:.1%}"])
    header = ["", "time", "in steps", "to a synchronous save"]
    more = megabytes(found["asynchronous"]) - megabytes(plain)
    return "\n".join(
        [
            conditions(rounds),
            f"A step takes {1000 * step:.0f} ms. Peak memory with asynchronous saves: {more:+,.0f} MB.",
            "",
            markdown(header, rows),
        ]
    )


def pause(each: Pass) -> float:
    """Seconds a save."""
    return each.done["pause"] / each.done["saves"]


def cost(each: Pass, bare: Pass) -> float:
    """Seconds more than without saves, a save."""
    return (each.seconds - bare.seconds) / each.done["saves"]


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


if __name__ == "__main__":
    main()
