"""Damaged files of a run: each command tells of them in plain language, and shows the runs beside it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from answered import answered_run
from click.testing import CliRunner

from clmed import load_run
from clmed.cli import commands
from clmed.errors import UserError
from clmed.results.diagnosis import diagnose
from clmed.results.plots import figures
from clmed.results.rundir import RunDirectory
from clmed.results.runs import Run
from clmed.results.sound import wrong_answers, wrong_config, wrong_score, wrong_source, wrong_step

LAST = 2
SCORE = {
    "point": 1, "tokens": 5, "experience": "one", "final": True, "role": "gain", "benchmark": "exam", "shots": 0,
    "questions": 9, "category": "all", "metric": "accuracy", "score": 0.5,
}  # fmt: skip
SOURCE = {"nats": [3.0], "supervised": [2], "context_free": 5.0, "bytes": 9, "tokens": 3, "scripts": {}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    answered_run(folder / "run", name="hurt", strategy={"l2": {}})
    answered_run(folder / "naive", forgets=0.5)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "runs")
    return tmp_path / "runs"


def rewrite(run: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    kept = [found for row in rows if (found := change(row)) is not None]
    (run / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))


def answers(run: Path, change: Callable[[pyarrow.Table], pyarrow.Table], point: int = LAST) -> None:
    file = run / "answers" / str(point) / "mmlu.parquet"
    pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(file)), file)


def with_null(table: pyarrow.Table) -> pyarrow.Table:
    values = [None, *table["correct"].to_pylist()[1:]]
    return table.drop(["correct"]).append_column("correct", pyarrow.array(values))


def a_folder(run: Path, name: str) -> None:
    (run / name).unlink()
    (run / name).mkdir()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def deleted(run: Path, everything: bool = False) -> None:
    """The lines of the base; or that of one benchmark, as somebody does who is told to delete what is damaged."""
    gone = {"point": 0} if everything else {"point": 0, "benchmark": "mmlu", "category": "all"}
    rewrite(run, lambda row: None if gone.items() <= row.items() else row)


def configured(run: Path, text: str) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(text)


# What is done to a run, and what `clmed compare` says of it.
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a deleted line": (deleted, "mmlu: no base score in run: it is left out of the averages"),
    "a deleted base": (lambda run: deleted(run, True), "no scores of the base in run: no change is known"),
    "fewer answers": (lambda run: answers(run, lambda t: t[:9]), "2/mmlu.parquet has 9 rows and"),
    "no answers": (lambda run: answers(run, lambda t: t[:0]), "2/mmlu.parquet is damaged: it holds no rows"),
    "no column": (lambda run: answers(run, lambda t: t.drop(["correct"])), "no column correct, score or nats"),
    "no key": (lambda run: answers(run, lambda t: t.drop(["prompt_hash"]), 0), "one has no column prompt_hash"),
    "null": (lambda run: answers(run, with_null), "row 1 has nothing in the column correct"),
    "answers a folder": (lambda run: a_folder(run, "answers/2/mmlu.parquet"), "2/mmlu.parquet is damaged"),
    "no role": (lambda run: rewrite(run, lambda row: row.pop("role") and row), "line 1 is damaged (it has no role)"),
    "text": (
        lambda run: rewrite(run, lambda row: row | {"tokens": "9"}),
        "line 1 is damaged (its field tokens is no number)",
    ),
    "cut off": (lambda run: cut(run / "results.jsonl"), "results.jsonl is damaged: its last line is cut off"),
    "a folder": (lambda run: a_folder(run, "results.jsonl"), "results.jsonl cannot be read (Is a directory)"),
    "strategy": (lambda run: configured(run, "strategy: naive\n"), "config.yaml is damaged: its strategy is 'naive'"),
}


def ran(command: str, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands, [command, *arguments])
    assert done.exception is None or isinstance(done.exception, (UserError, SystemExit)), done.exc_info
    return done.exit_code, " ".join(f"{done.output}{done.exception or ''}".split())


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_told_beside_the_others(name: str, folder: Path) -> None:
    damage, words = DAMAGE[name]
    damage(folder / "run")
    code, text = ran("compare", str(folder), "--format", "json")
    assert code == 0 and words in text and text.count("naive") > 1, text
    for command in ("diagnose", "watch"):
        ran(command, str(folder / "run"), *(["--once"] if command == "watch" else []))
    for path in (folder, folder / "run"):
        code, text = ran("report", str(path), "-o", str(folder / "page.html"))
        assert code == 0 or (path != folder and "results.jsonl" in text), text
    for draw in figures([folder]).values():
        draw()
    try:
        load_run(folder / "run").plot()
    except UserError as error:
        assert "cannot be plotted" in str(error)


def test_what_a_row_must_hold() -> None:
    assert wrong_score(SCORE | {"role": "x"}) == "its role is neither gain nor retention"
    assert not wrong_score(SCORE | {"shots": None}), "of a group of tasks with different shots"
    assert not wrong_score(SCORE) and not wrong_score(SCORE | {"score": float("nan")})
    for key in SCORE:
        assert wrong_score({name: value for name, value in SCORE.items() if name != key})
        assert wrong_score(SCORE | {key: ["x"]})
    assert wrong_score([]) and wrong_score(SCORE | {"score": None}) and wrong_score(SCORE | {"seconds": None})
    step = {"experience": "one", "tokens": 5, "loss": 2.0}
    assert not wrong_step(step)
    assert wrong_step({"tokens": 5}) == "it has no experience" and wrong_step(step | {"experience": 1})
    assert wrong_step(step | {"loss": None}) == "its field loss is no number"


@pytest.mark.parametrize(
    "odd",
    [
        {"seed": "x"}, {"strategy": "naive"}, {"strategy": {"ewc": 5}}, {"evaluation": [1]}, {"stream": {"a": 1}},
        {"evaluation": {"gain": "cmexam"}}, {"evaluation": {"primary": "mmlu"}}, {"evaluation": {"floors": [1]}},
        {"training": 3}, {"model": "gpt2"},
    ],
)  # fmt: skip
def test_what_a_configuration_must_hold(odd: dict[str, Any]) -> None:
    assert not wrong_config({"strategy": {"ewc": None}, "evaluation": None})
    assert wrong_config({"name": "x", **odd})


def test_what_is_known_of_a_source(folder: Path) -> None:
    assert not wrong_source(SOURCE)
    for odd in (
        "x",
        {},
        SOURCE | {"nats": []},
        SOURCE | {"tokens": 0},
        SOURCE | {"nats": ["x"]},
        SOURCE | {"scripts": 1},
    ):
        assert wrong_source(odd)
    RunDirectory(folder / "run").set_sources({"texts": {**SOURCE, "nats": "many"}})
    with pytest.raises(UserError, match=r"sources\.json is damaged at texts: its nats or supervised"):
        diagnose(folder / "run")


def test_answers_without_a_value() -> None:
    assert not wrong_answers({"correct": [None, True], "score": [0.5, 1.0]}), "a graded answer is not right or wrong"
    assert not wrong_answers({"correct": [True], "score": [None]}) and not wrong_answers({"nats": [1.0], "tokens": [2]})
    for odd in ({}, {"correct": []}, {"correct": [None]}, {"correct": ["yes"]}, {"nats": [1.0]}):
        assert wrong_answers(odd)


def test_a_complete_run_without_results_is_not_told_to_go_on(folder: Path) -> None:
    (folder / "run" / "results.jsonl").unlink()
    for text in (Run(path=folder / "run").told, ran("compare", str(folder))[1]):
        assert "is complete and has measured nothing" in text  # its configuration has no benchmarks
    configured(folder / "run", "evaluation:\n  gain:\n  - benchmark: cmexam\n")
    code, text = ran("report", str(folder / "run"))
    assert code and "is complete, but its results.jsonl holds no scores" in text
    assert "--overwrite" in text and "go on" not in text
