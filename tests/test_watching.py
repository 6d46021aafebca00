"""What a run tells while it goes on: train.jsonl, the line without a terminal, one rank's voice."""

import io
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from clmed import validation
from clmed.planning import shapes
from clmed.results.rundir import RunDirectory
from clmed.training import watch
from clmed.training.flops import flops
from clmed.training.sharding import World
from tests.command import in_process, write_tiny
from tests.small import make_trainer, small_config

SHORT = ["stream.0.measure_at=[]", "evaluation.gain=[]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return tmp_path


def test_what_a_step_says(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    done = in_process(
        capfd, "run", "tiny.yaml", *SHORT, "watching.kl={data: english, rows: 2, every: 2}", "-o", "watched"
    )
    assert done.code == 0, done.err
    rows = RunDirectory.open(folder / "watched").training()
    for row in rows:
        assert row["tokens_per_second"] > 0 and row["peak_memory"] > 10**7
        assert "mfu" not in row  # a CPU's peak is not known
    assert [row["step"] for row in rows if "kl_to_base" in row][-1] == rows[-1]["step"]


@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_of_the_plan(tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=52, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    planned = shapes.of_config("pico", config.to_dict()).flops_per_token(64)
    assert flops(LlamaForCausalLM(config), 64) == (planned / 3, planned)


def test_utilisation_is_flops_by_time_by_peak() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.train_seconds, self.all_tokens, self.flops = 10.0, 1000, 5e9
            self.log: dict[str, float] = {}
            self.tokens = self.bytes = 0
            self.device = torch.device("cpu")
            self.world = type("World", (), {"ranks": 2})
            self.experience = type("Experience", (), {"name": "a"})
            self.clock = type("Clock", (), {"train_exp_iterations": 0})

        def count_seconds(self) -> None:
            self.train_seconds += 2.0

    written: list[dict[str, Any]] = []
    log, trainer = watch.TrainingLog(written.append, peak=1e9), Trainer()
    log.before_training_exp(trainer)
    trainer.all_tokens, trainer.flops = 4000, 6e9
    log.after_training_iteration(trainer)
    assert written[0]["tokens_per_second"] == 1500.0
    assert written[0]["mfu"] == pytest.approx(1e9 / (2 * 2 * 1e9))


def test_a_run_that_goes_on_counts_from_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT", 0.0)
    experience = SimpleNamespace(name="pretraining", batches=range(10))
    trainer = SimpleNamespace(
        experience=experience, totals={"tokens": range(0, 1100, 100)}, first_step=8, all_tokens=5800, log={}
    )
    out = io.StringIO()
    bar = watch.ProgressBar(Console(file=out))
    bar.before_training_exp(trainer)
    bar.started -= 60  # the ninth step took a minute, and one is left
    trainer.all_tokens, trainer.log = 5900, {"loss": 1.0, "lr": 1e-3}
    bar.after_training_iteration(trainer)
    assert bar.progress is not None and bar.progress.tasks[0].completed == 9
    assert "pretraining: 900/1.0k tokens " in out.getvalue() and " 1 min" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_strategies_that_compute_for_long_have_a_bar(
    terminal: bool, make_model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path))  # what was computed before needs none
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    strategy = {
        "ewc": {"fisher_from": ["english"], "rows": 3, "past": False},
        "der": {"from": ["english"], "memory": 2, "top": 2},
        "distill": {"teacher": "stored", "rows": 2, "top": 2},
    }
    config = small_config(strategy, evaluation={"gain": [], "retention": []})
    trainer = make_trainer(config, make_model(), tokenizer, World())
    (experience, _) = trainer.stream
    trainer.experience = experience
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters())
    for plugin in trainer.plugins[:3]:
        plugin.before_training_exp(trainer)
    told = capfd.readouterr().err
    assert told.count("Fisher information") >= terminal and told.count("(logits)") >= 2 * terminal
    assert terminal or not told


def test_a_notebook_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    def show(data: dict[str, str], **_: Any) -> SimpleNamespace:
        shown.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, raw: shown.append("again: " + data["text/plain"]))

    monkeypatch.setattr(display, "display", show)
    line = watch.NotebookLine()
    line.show("1k/2k tokens")
    line.show("2k/2k tokens")
    assert shown == ["1k/2k tokens", "again: 2k/2k tokens"]


def _rank(rank: int, port: int, folder: Path) -> None:
    """`clmed run` as torchrun starts it, with everything that it prints in a file."""
    out = os.open(folder / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1) for fd in (1, 2))
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "COLUMNS": "120"}
    watch.HEARTBEAT = 0.0
    from clmed import experiment

    torch.set_num_threads(1)
    code = 1
    try:
        experiment.run(validation.load("tiny.yaml", [*SHORT, "training.threads=1"]), folder / "two")
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def test_one_rank_speaks_with_a_line_now_and_then(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_rank, args=(rank, port, folder)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
    said = [(folder / f"rank{rank}.txt").read_text() for rank in range(2)]
    assert [process.exitcode for process in ranks] == [0, 0], said
    assert said[1] == ""
    steps = len((folder / "two" / "train.jsonl").read_text().splitlines())
    beats = [
        line for line in said[0].splitlines() if " left" in line and line.startswith(("pretraining:", "finetuning:"))
    ]
    assert len(beats) == steps
    assert "loss " in beats[0] and "lr " in beats[0] and "/s" in beats[0]
    assert json.loads((folder / "two" / "status.json").read_text())["state"] == "complete"
