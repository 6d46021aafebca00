"""A small experiment for tests: MiniWorld's data, a pico model, a few steps; and two ranks in two forked processes."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clmed.config import ExperimentConfig, resolve
from clmed.data.corpus import Corpus
from clmed.evaluation.evaluator import Scores, make_benchmarks
from clmed.strategy import make_strategies
from clmed.stream import make_scenario
from clmed.training.launch import make_mesh
from clmed.training.sharding import World, shard
from clmed.training.structure import Structure
from clmed.training.trainer import ContinualTrainer

GENERAL = ["english", "chinese"]


def small_config(strategy: dict[str, Any], **changes: Any) -> ExperimentConfig:
    """Two short experiences (medical text, exam) with general text at hand; `changes` replace whole sections."""
    optimizer = {"lr": 1e-3, "warmup": 0.1} | ({"weight_decay": 0.0} if "l2" in strategy else {})
    sections: dict[str, Any] = {
        "name": "small",
        "data_root": "miniworld",
        "model": {"path": "unused"},
        "data": {
            "english": {"path": "general/synthetic_english_covered_texts.jsonl", "format": "text", "fisher": 0.2},
            "chinese": {"path": "general/synthetic_chinese_covered_qa.jsonl", "format": "qa", "fisher": 0.2},
            "medical": {"path": "medical/synthetic_medical_texts.jsonl", "format": "text", "fisher": 0.2},
            "exam": {"path": "cmexam/synthetic_train.csv", "format": "exam", "answer_as": "text", "fisher": 0.2},
        },
        "stream": [
            {"name": "pretraining", "data": ["medical"], "tokens": 8000, "optimizer": optimizer},
            {"name": "finetuning", "data": ["exam"], "tokens": 4000, "optimizer": optimizer},
        ],
        "strategy": strategy,
        "evaluation": {
            "gain": [{"benchmark": "cmexam", "path": "cmexam/synthetic_val.csv", "scoring": "text"}],
            "retention": [
                {"benchmark": "mmlu", "path": "mmlu", "scoring": "text", "questions": 20},
                {"perplexity": "english"},
            ],
        },
        "training": {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 16},
    }
    return ExperimentConfig.model_validate(sections | changes)


def make_trainer(
    config: ExperimentConfig, model: Any, tokenizer: Any, world: World, *, sharded: bool = False, **extra: Any
) -> ContinualTrainer:
    """The trainer of a configuration, and its stream as `trainer.stream`. sharded: whether the model is already."""
    corpus = Corpus.of(config, tokenizer, config.training.sequence_length)
    strategies = make_strategies(config)
    benchmarks = make_benchmarks(
        config.evaluation,
        path_of=lambda path: resolve(config, path),
        corpus=corpus,
        tokenizer=tokenizer,
        positions=model.config.max_position_embeddings,
    )
    scenario = make_scenario(
        config.stream,
        training=config.training,
        corpus=corpus,
        strategies=strategies,
        seed=config.seed,
        benchmarks=benchmarks,
        rank=world.rank,
        ranks=world.ranks,
    )
    trainer = ContinualTrainer(
        model=model if sharded else shard(model, world, config.training),
        world=world,
        corpus=corpus,
        strategies=strategies,
        structure=Structure(model, strategies, world, config.training),
        metrics=[Scores()],
        benchmarks=[stream for name, stream in scenario.streams.items() if name != "train"],
        **extra,
    )
    trainer.stream = scenario.streams["train"]  # type: ignore[attr-defined]
    return trainer


def full_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Whole parameters, gathered from all ranks."""
    whole = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        whole[name] = (value.full_tensor() if hasattr(value, "full_tensor") else value).clone()
    return whole


def on_ranks(ranks: int, work: Callable[[World], Any], folder: Path, shard_ranks: int | None = None) -> Any:
    """Run `work(world)` in `ranks` forked processes over Gloo; what rank 0 returns (saved with torch) is returned.

    shard_ranks: how many of them hold one copy of the model, as in `training.shard_ranks`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    result = folder / "result.pt"
    processes = [
        context.Process(target=_rank, args=(rank, ranks, port, work, result, shard_ranks)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(1200)  # four ranks on a busy machine
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * ranks, f"exit codes {codes}"
    return torch.load(result, weights_only=False)


def _rank(
    rank: int, ranks: int, port: int, work: Callable[[World], Any], result: Path, shard_ranks: int | None
) -> None:
    try:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
        value = work(World(rank=rank, ranks=ranks, mesh=make_mesh("cpu", ranks, shard_ranks)))
        if rank == 0:
            torch.save(value, result)
        torch.distributed.barrier()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
