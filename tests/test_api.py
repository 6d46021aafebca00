"""clmed from Python: the same numbers as the command gives, data frames, mistakes as exceptions, a light import."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch.distributed as dist

import clmed
from clmed.results import comparison, frames, metrics
from clmed.results.rundir import RunDirectory
from tests.command import Done, process, write_tiny

CHANGED = {"strategy.replay.ratio": 0.5, "stream.pretraining.measure_at": ["1k"], "evaluation.retention": []}
WRITTEN = ["strategy.replay.ratio=0.5", "stream.pretraining.measure_at=[1k]", "evaluation.retention=[]", "seed=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("api")
        patch.chdir(folder)
        write_tiny(folder)
        yield folder


@pytest.fixture(scope="module")
def run(folder: Path) -> clmed.Run:
    return clmed.run("tiny.yaml", CHANGED, seed=1)


@pytest.fixture(scope="module")
def commanded(folder: Path, run: clmed.Run) -> Done:
    """The same as a command, with the base model that is there by now."""
    return process(folder, "clmed", "run", "tiny.yaml", *WRITTEN, "-o", "commanded")


def test_the_numbers_are_those_of_the_command_bit_for_bit(run: clmed.Run, commanded: Done, folder: Path) -> None:
    """And again in the same process, in another thread, after a run that was sharded."""
    assert commanded.code == 0, commanded.err
    clmed.run("tiny.yaml", CHANGED, {"training.sharding": "full"}, seed=1, output="sharded")
    assert not dist.is_initialized()
    thread = threading.Thread(target=clmed.run, args=("tiny.yaml", *WRITTEN), kwargs={"output": "threaded"})
    thread.start()
    thread.join()
    for other in ("commanded", "threaded"):
        found = clmed.load_run(other)
        assert found.state == "complete" and found.config == run.config
        assert found.scores.score.equals(run.scores.score) and len(run.scores) > 10
        for column in ("loss", "loss/medical", "grad_norm", "lr", "tokens"):
            assert found.training[column].equals(run.training[column]), column
        weights = [(each.path / "model" / "model.safetensors").read_bytes() for each in (found, run)]
        assert weights[0] == weights[1]
    assert clmed.load_run("sharded").training.loss.to_numpy() == pytest.approx(run.training.loss.to_numpy(), abs=1e-5)


def test_a_complete_run_is_loaded_and_not_run_again(run: clmed.Run) -> None:
    written = (run.path / "results.jsonl").stat().st_mtime_ns
    again = clmed.run("tiny.yaml", *WRITTEN)
    assert again.path == run.path and (run.path / "results.jsonl").stat().st_mtime_ns == written
    with pytest.raises(clmed.UserError, match="runs/tiny holds a run of another configuration: seed"):
        clmed.run("tiny.yaml", CHANGED, seed=2)


@pytest.mark.parametrize(
    ("given", "values", "told"),
    [
        ([{"sed": 1}], {}, "overrides: unknown key 'sed'; did you mean 'seed'?"),
        ([], {"sed": 1}, "overrides: unknown key 'sed'"),
        (["strategy.ewk.strength=1"], {}, "overrides: no strategy 'ewk'; did you mean 'ewc'?"),
        (["seed"], {}, "overrides: 'seed' is not of the form key=value"),
        ([{"name": "a b: [c]"}], {}, "overrides: name: must be letters"),
        ([{"stream.2.tokens": 5}], {}, "overrides: 'stream.2.tokens=5': stream has no item '2'"),
    ],
)
def test_mistakes_are_exceptions_with_the_plain_message(folder: Path, given: list, values: dict, told: str) -> None:
    with pytest.raises(clmed.UserError) as caught:
        clmed.run("tiny.yaml", *given, **values)
    assert str(caught.value).startswith(told)


def test_values_come_as_they_are(folder: Path) -> None:
    """Text stays text, numbers of numpy and paths are understood."""
    from clmed.api import _written

    given = {"a": "1M", "b": np.float32(0.5), "c": Path("x/y"), "d": None, "e": [1, "二😀"], "f": 1e-7, "g": True}
    assert _written("seed=1", given) == [
        "seed=1", 'a="1M"', "b=0.5", 'c="x/y"', "d=null", 'e=[1, "二😀"]', "f=1e-07", "g=true",
    ]  # fmt: skip


def test_scores_are_the_rows_of_the_file(run: clmed.Run) -> None:
    rows = RunDirectory(run.path).results()
    assert list(run.scores.columns[: len(frames.SCORES)]) == list(frames.SCORES)
    assert run.scores.score.tolist() == [row["score"] for row in rows]
    assert {str(run.scores[name].dtype) for name in ("point", "tokens", "questions")} == {"int64"}
    assert run.scores.score.dtype == "float64" and run.scores.final.dtype == bool
    assert run.rows == rows and run.gain() == metrics.gain(rows) and np.isnan(run.retention())
    assert run.forgetting().to_dict() == metrics.forgetting(rows)
    assert clmed.metrics.gain(run.rows) == run.gain()
    assert run.matrix()["cmexam"].tolist() == list(metrics.primary(rows)["cmexam"].values())
    assert f"{100 * run.gain():+.1f}".replace("-", "−") in repr(run)


def test_a_source_that_a_step_has_not_is_nan(run: clmed.Run) -> None:
    first = run.training[run.training.experience == "pretraining"]
    assert first["loss/exam"].isna().all() and first["loss/medical"].notna().all()
    assert run.training.step.dtype == "int64" and run.training.loss.dtype == "float64"


def test_answers_lead_to_the_scores(run: clmed.Run) -> None:
    whole = run.scores[(run.scores.category == "all") & (run.scores.metric == "accuracy")]
    right = run.answers.groupby("point").correct.mean()
    assert right.tolist() == pytest.approx(whole.score.tolist())
    assert run.answers.groupby("point").size().tolist() == whole.questions.tolist()
    assert run.answers.trained_tokens.unique().tolist() == whole.tokens.tolist()
    assert (
        set(run.answers.groupby("index").question.nunique(dropna=False)) == {1} and run.answers.question.notna().all()
    )
    kept = run.directory.answers(0, "cmexam")["question"]
    assert run.answers[run.answers.point == 1].question.tolist() == kept
    assert "question" not in run.directory.answers(1, "cmexam")


@pytest.mark.parametrize("state", ["running", "killed", "stopped"])
def test_a_run_in_progress_loads_with_its_state(tmp_path: Path, state: str, run: clmed.Run) -> None:
    made = RunDirectory.create(tmp_path / "run", "name: half\n", {})
    if state == "stopped":
        made.set_status("stopped", "the disk is full")
    elif state == "killed":
        (tmp_path / "run" / "status.json").write_text('{"state": "running", "reason": "", "pid": 1, "host": "gone"}')
    empty = clmed.load_run(tmp_path / "run")
    assert (empty.state, empty.name) == (state, "half")
    assert empty.reason == ("the disk is full" if state == "stopped" else "")
    for frame, columns in (
        (empty.scores, frames.SCORES), (empty.training, frames.TRAINING), (empty.answers, frames.ANSWERS),
    ):  # fmt: skip
        assert len(frame) == 0 and frame.columns.tolist() == list(columns)
        assert frame.dtypes.to_dict() == pandas.DataFrame({k: [] for k in columns}).astype(columns).dtypes.to_dict()
    assert np.isnan(empty.gain()) and len(empty.forgetting()) == len(empty.matrix()) == 0
    assert state in repr(empty)
    made.add_results(run.rows[:3])
    with (tmp_path / "run" / "results.jsonl").open("a") as file:
        file.write('{"point": 1, "tok')  # what a kill leaves
    assert len(clmed.load_run(tmp_path / "run").scores) == 3


def test_figures_are_matplotlibs_and_shown(run: clmed.Run) -> None:
    figure = run.plot()
    assert len(figure.axes) == 1
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG") and size["width"] >= 300
    assert len(run.plot("training").axes) > 1
    with pytest.raises(clmed.UserError, match="no figure 'forgeting' of these runs; did you mean 'forgetting'"):
        run.plot("forgeting")


def test_a_comparison_is_that_of_the_command(run: clmed.Run, commanded: Done, folder: Path) -> None:
    shown = clmed.compare([run, "commanded"])
    rows = comparison.compare([run.path, "commanded"]).rows
    assert shown.index.tolist() == [row.label for row in rows]
    for row in rows:
        assert row.gain is not None
        assert shown.loc[row.label, ["gain", "gain_low", "gain_high"]].tolist() == [
            row.gain.value, row.gain.low, row.gain.high,
        ]  # fmt: skip
        assert shown.loc[row.label, "cmexam"] == row.cells["cmexam"].change.value
        assert np.isnan(shown.loc[row.label, "retention"]) and shown.loc[row.label, "state"] == "complete"
    assert any("several seeds" in note for note in shown.attrs["notes"])
    with pytest.raises(clmed.UserError, match="no such folder"):
        clmed.compare(["nowhere"])


def test_import_clmed_imports_nothing(folder: Path) -> None:
    program = (
        "import sys, clmed; heavy = {'torch', 'pandas', 'matplotlib', 'numpy', 'yaml', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy; clmed.run, clmed.Run, clmed.compare; heavy = {'torch', 'pandas', 'matplotlib'}; "
        "assert not heavy & set(sys.modules), heavy; assert not hasattr(clmed, 'nonsense')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_names_are_known_to_type_checkers_and_dir() -> None:
    found: list[Callable] = [getattr(clmed, name) for name in clmed.__all__]
    assert len(found) == len(set(map(id, found))) == 7
