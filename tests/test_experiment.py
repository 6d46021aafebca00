"""`clmed run` from the outside: everything a run must say and leave behind, and that two processes equal one."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clmed import config
from clmed.config import resolve
from clmed.data.corpus import Corpus
from clmed.evaluation.evaluator import make_benchmarks
from clmed.results.rundir import RunDirectory
from clmed.training import watch
from tests.command import Done, checkpoint_files, files, in_process, process, write_tiny

POINTS = 4  # the base, the milestone at 2k tokens, the ends of both experiences
EXAMS = ["cmexam", "mmlu"]
BENCHMARKS = [*EXAMS, "english_perplexity"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tiny.yaml lies; the cache begins empty, so that the base model is made."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("experiment")
        patch.setenv("CLMED_CACHE", str(folder / "cache"))
        write_tiny(folder)
        yield folder


@pytest.fixture(scope="module")
def done(folder: Path) -> Done:
    """One whole run in a process of its own, in runs/tiny."""
    return process(folder, "clmed", "run", "tiny.yaml")


@pytest.fixture(scope="module")
def run(folder: Path, done: Done) -> RunDirectory:
    assert done.code == 0, done.err
    return RunDirectory.open(folder / "runs" / "tiny")


def test_a_run_leaves_exactly_these_files(run: RunDirectory) -> None:
    answers = {f"answers/{point}/{benchmark}.parquet" for point in range(POINTS) for benchmark in BENCHMARKS}
    model = {"config", "generation_config", "tokenizer", "tokenizer_config"}
    pretrained = sum(row["experience"] == "pretraining" for row in run.training())
    ends = [f"{pretrained:08d}-1", f"{len(run.training()):08d}-2"]
    assert files(run.path).keys() == {
        *("config.yaml", "environment.json", "status.json", "sources.json", "train.jsonl", "results.jsonl", "log.txt"),
        *answers,
        *checkpoint_files(*ends),
        *(f"model/{name}.json" for name in model),
        "model/model.safetensors",
        "figures/forgetting.png",
        "figures/forgetting.svg",
    }
    assert run.status()["state"] == "complete"
    figures = files(run.figures)
    assert figures["forgetting.png"].startswith(b"\x89PNG") and b"<svg" in figures["forgetting.svg"]


def test_the_configuration_loads_again_equal(run: RunDirectory, folder: Path) -> None:
    assert config.load(run.path / "config.yaml") == config.load(folder / "tiny.yaml")
    environment = json.loads((run.path / "environment.json").read_text())
    assert {"torch", "avalanche-lib"} <= environment["versions"].keys() and environment["ranks"] == 1


def test_training_has_one_line_a_step(run: RunDirectory) -> None:
    rows = run.training()
    steps = [(row["experience"], row["step"]) for row in rows]
    own = {name: sum(experience == name for experience, _ in steps) for name in ("pretraining", "finetuning")}
    assert steps == [(name, step + 1) for name, count in own.items() for step in range(count)]
    assert len(steps) >= 8
    for row in rows:
        assert math.isfinite(row["loss"]) and row["grad_norm"] > 0 and row["lr"] > 0
        assert "loss/english" in row
    for key in ("tokens", "all_tokens", "bytes", "flops", "time"):
        values = [row[key] for row in rows]
        assert values == sorted(set(values)), key
    assert rows[-1]["tokens"] == pytest.approx(6000, rel=0.05)
    assert rows[-1]["all_tokens"] == pytest.approx(8000, rel=0.05)


def test_results_hold_the_base_the_milestone_and_the_ends(run: RunDirectory) -> None:
    rows = run.results()
    points = {row["point"]: (row["experience"], row["final"]) for row in rows}
    assert points == {0: ("base", True), 1: ("pretraining", False), 2: ("pretraining", True), 3: ("finetuning", True)}
    measured = {(row["point"], row["benchmark"]) for row in rows if row["category"] == "all"}
    assert measured == {(point, benchmark) for point in points for benchmark in BENCHMARKS}
    roles = {row["benchmark"]: row["role"] for row in rows}
    assert roles == {"cmexam": "gain", "mmlu": "retention", "english_perplexity": "retention"}
    trained = {row["step"]: row["tokens"] for row in run.training() if row["experience"] == "pretraining"}
    tokens = {row["point"]: row["tokens"] for row in rows}
    assert tokens == {0: 0, 1: min(n for n in trained.values() if n >= 2000), 2: max(trained.values()), 3: tokens[3]}
    assert tokens[3] == run.training()[-1]["tokens"]


def test_scores_follow_from_the_answers(run: RunDirectory) -> None:
    scores = {
        (r["point"], r["benchmark"]): r for r in run.results() if (r["category"], r["metric"]) == ("all", "accuracy")
    }
    assert len(scores) == POINTS * len(EXAMS)
    for (point, exam), row in scores.items():
        answers = run.answers(point, exam)
        right = [given == gold for given, gold in zip(answers["prediction"], answers["gold"], strict=True)]
        assert right == answers["correct"] and len(right) == row["questions"] > 0
        assert sum(right) / len(right) == pytest.approx(row["score"], abs=1e-12)
        best = [options[max(range(len(v)), key=v.__getitem__)] for options, v in _choices(answers)]
        assert best == answers["prediction"]


def _choices(answers: dict) -> Iterator[tuple[list[str], list[float]]]:
    return zip(answers["answers"], answers["log_likelihoods"], strict=True)


def test_the_saved_model_is_the_trained_one(run: RunDirectory) -> None:
    """Loaded anew it gives every question the log-likelihoods that the model in training had."""
    settings = config.load(run.path / "config.yaml")
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    benchmarks = make_benchmarks(
        settings.evaluation,
        path_of=lambda path: resolve(settings, path),
        corpus=Corpus.of(settings, tokenizer, settings.training.sequence_length),
        tokenizer=tokenizer,
        positions=512,
    )
    model = AutoModelForCausalLM.from_pretrained(run.model)
    for exam, benchmark in zip(EXAMS, benchmarks, strict=False):
        assert benchmark.name == exam
        kept, now = run.answers(POINTS - 1, exam), benchmark.measure(model).answers
        assert now["log_likelihoods"] == [pytest.approx(values, abs=1e-5) for values in kept["log_likelihoods"]]
        before = run.answers(0, exam)["log_likelihoods"]
        assert now["log_likelihoods"] != [pytest.approx(values, abs=1e-2) for values in before]


def test_the_plan_and_the_table_are_told_and_logged(done: Done, run: RunDirectory) -> None:
    log = run.log.read_text()
    for told in (done.out, log):
        for words in (
            "a small Llama made from scratch, 45,216 parameters",
            "made first, once: 4,096 tokens",
            "pretraining: 4,0",
            "medical 75.0%, english 25.0%",
            "exam 75.0%, english 25.0%",
            "strategy       replay",
            "cmexam, mmlu, english_perplexity (measured 4 times)",
            "training time  about ",
            "making the base model",
            "measured cmexam: accuracy",
        ):
            assert words in told
        table = told[told.index("point") :]
        assert [line.split()[:2] for line in table.splitlines() if line.split()[:1] and line.split()[0].isdigit()] == [
            ["0", "base"],
            ["1", "pretraining"],
            ["2", "pretraining"],
            ["3", "finetuning"],
        ]
        assert "runs/tiny/figures/forgetting.png, runs/tiny/figures/forgetting.svg" in table
        assert "model    runs/tiny/model\nresults  runs/tiny (done in " in table
    assert "Traceback" not in done.err and "\x1b" not in done.out


def test_without_a_terminal_a_line_now_and_then_tells_the_progress(
    folder: Path, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the same run on the same machine gives the same numbers."""
    monkeypatch.setattr(watch, "HEARTBEAT", 0.0)
    told = in_process(capfd, "run", str(folder / "tiny.yaml"), "-o", str(folder / "again"))
    assert told.code == 0
    lines = [line for line in told.out.splitlines() if line.startswith(("pretraining: ", "finetuning: "))][
        -len(run.training()) :
    ]
    assert len(lines) == len(run.training())
    for line in lines:
        for words in (" tokens  loss ", "  lr ", "/s  ", " left"):
            assert words in line
    again = RunDirectory.open(folder / "again")
    assert [row["loss"] for row in again.training()] == [row["loss"] for row in run.training()]
    assert files(again.model)["model.safetensors"] == files(run.model)["model.safetensors"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "complete: nothing to do; --overwrite starts again"),
        (["seed=1"], "another configuration: seed (0 there, 1 here)"),
    ],
)
def test_a_run_is_not_overwritten_unasked(
    folder: Path, run: RunDirectory, capfd: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    before = files(run.path)
    told = in_process(capfd, "run", str(folder / "tiny.yaml"), *overrides, "-o", str(run.path))
    told.is_mistake(str(run.path), message)
    assert told.out == "" and files(run.path) == before


def test_overwrite_starts_again(folder: Path, run: RunDirectory, capfd: pytest.CaptureFixture[str]) -> None:
    old = RunDirectory(shutil.copytree(run.path, folder / "old"))
    options = ("stream.1.tokens=1k", "stream.0.tokens=1k", "stream.0.measure_at=[]", "-o", str(old.path), "--overwrite")
    assert in_process(capfd, "run", str(folder / "tiny.yaml"), *options).code == 0
    assert old.status()["state"] == "complete"
    assert {row["point"] for row in old.results()} == {0, 1, 2}
    assert len(old.training()) < len(run.training())
    assert not (old.path / "answers" / "3").exists()


def test_two_processes_equal_one(folder: Path, run: RunDirectory) -> None:
    done = process(
        folder, "torch.distributed.run", "--nproc-per-node", "2", "-m", "clmed", "run", "tiny.yaml", "-o", "two"
    )
    assert done.code == 0, done.err
    assert "processes      2, sharded" in done.out
    two = RunDirectory.open(folder / "two")
    _equal(run.training(), two.training(), close=["loss", "share", "grad_norm"])
    _equal(run.results(), two.results(), close=["score"])
    one, other = (AutoModelForCausalLM.from_pretrained(each.model).state_dict() for each in (run, two))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5)


def _equal(one: list[dict], two: list[dict], close: list[str]) -> None:
    """The same rows: the columns in `close` (those of each source, too) within 1e-5, all but times exactly."""
    assert len(one) == len(two) > 0
    for here, there in zip(one, two, strict=True):
        assert here.keys() == there.keys()
        for key in here.keys() - {"time", "seconds", "train_seconds", "tokens_per_second", "peak_memory"}:
            near = key.partition("/")[0] in close
            assert there[key] == (pytest.approx(here[key], rel=0, abs=1e-5) if near else here[key]), key
