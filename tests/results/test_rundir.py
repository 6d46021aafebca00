"""The run directory: what it refuses, what survives a kill, and that nothing foreign is ever removed."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clmed.errors import UserError
from clmed.results.rundir import RunDirectory

CONFIG = "name: a\nseed: 0\nstrategy: {replay: {ratio: 0.05}, ewc: {strength: 1.0}}\nstream: [{name: one, epochs: 1}]\n"


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", CONFIG, {"python": "3.11"})


def files_under(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


def test_a_fresh_run_can_be_opened_and_read(run):
    opened = RunDirectory.open(run.path)
    assert opened.config()["strategy"]["replay"] == {"ratio": 0.05}
    assert opened.environment() == {"python": "3.11"}
    assert opened.status()["state"] == "running"
    assert opened.results() == [] and opened.training() == []
    assert files_under(run.path) == {"config.yaml", "environment.json", "status.json"}


def test_rows_come_back_as_they_went_in(run):
    run.add_results([{"point": 0, "score": np.float32(0.5), "category": "解剖"}, {"point": 1, "score": 0.25}])
    run.add_results([{"point": 2, "score": math.inf}])
    run.add_training({"step": np.int64(3), "loss": 1.5})
    assert [row["score"] for row in run.results()] == [0.5, 0.25, math.inf]
    assert run.results()[0]["category"] == "解剖"
    assert run.training() == [{"step": 3, "loss": 1.5}]


def test_status_keeps_the_fingerprint_of_the_configuration(run, tmp_path):
    fingerprint = run.status()["fingerprint"]
    run.set_status("stopped", "Ctrl-C")
    assert run.status() | {"pid": 0, "began": 0, "host": ""} == {
        "state": "stopped",
        "reason": "Ctrl-C",
        "fingerprint": fingerprint,
        "pid": 0,
        "began": 0,
        "host": "",
    }
    same = RunDirectory.create(tmp_path / "same", "# a comment\n" + CONFIG, {})
    other = RunDirectory.create(tmp_path / "other", CONFIG.replace("seed: 0", "seed: 1"), {})
    assert same.status()["fingerprint"] == fingerprint != other.status()["fingerprint"]


def test_answers_come_back(run):
    columns = {"question": [3, 1], "prediction": ["A", "BD"], "logprob": [[-1.0, -2.5], [-0.5]], "题": ["甲", "乙"]}
    run.write_answers(2, "org/exam", columns)
    run.write_answers(2, "org%2Fexam", {"question": [0]})
    assert run.answers(2, "org/exam") == columns
    with pytest.raises(UserError, match=r"answers/1/exam\.parquet"):
        run.answers(1, "exam")
    file = next((run.path / "answers" / "2").iterdir())
    file.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="damaged"):
        [run.answers(2, name) for name in ("org/exam", "org%2Fexam")]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_passed_over_and_then_overwritten(run, cut):
    run.add_results([{"point": 0, "category": "题目"}, {"point": 1, "category": "题目"}])
    file = run.path / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    assert [row["point"] for row in run.results()] == [0]
    run.add_results([{"point": 7}])
    assert [row["point"] for row in run.results()] == [0, 7]


def test_damage_in_the_middle_is_an_error_with_its_line(run):
    run.add_results([{"point": point} for point in range(3)])
    file = run.path / "results.jsonl"
    file.write_text(file.read_text().replace('{"point": 1}', '{"point"'))
    with pytest.raises(UserError, match=r"results\.jsonl, line 2"):
        run.results()
    file.write_text("1\n")
    with pytest.raises(UserError, match="line 1"):
        run.results()
    (run.path / "environment.json").write_text("{")
    with pytest.raises(UserError, match=r"environment\.json is damaged"):
        run.environment()


def test_the_same_run_again_is_refused_unless_it_may_go_on(run):
    began = "from clmed.results.rundir import _began; import os; print(_began(os.getpid()), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{began}; import time; time.sleep(60)"], stdout=subprocess.PIPE
    ) as alive:
        assert alive.stdout is not None
        other = {"pid": alive.pid, "began": int(alive.stdout.readline())}
        status = json.loads((run.path / "status.json").read_text())
        (run.path / "status.json").write_text(json.dumps(status | other | {"began": other["began"] - 1}))
        assert run.may_go_on(CONFIG)  # its process has ended, and another one got the number
        (run.path / "status.json").write_text(json.dumps(status | other))
        assert not run.may_go_on(CONFIG)
        for overwrite in (False, True):
            with pytest.raises(UserError, match=rf"still going \(process {alive.pid}\)"):
                run.refuse_if_taken(CONFIG, overwrite)
        alive.kill()
    run.refuse_if_taken(CONFIG)  # killed
    run.set_status("stopped", "the loss is not finite")
    run.refuse_if_taken(CONFIG)
    assert run.may_go_on(CONFIG) and not run.may_go_on(CONFIG.replace("0.05", "0.1"))
    run.set_status("complete")
    assert not run.may_go_on(CONFIG)
    with pytest.raises(UserError, match="nothing to do; --overwrite starts again"):
        RunDirectory.create(run.path, CONFIG, {})


def test_another_configuration_is_refused_and_the_difference_named(run):
    run.set_status("complete")
    changed = CONFIG.replace("0.05", "0.1").replace("epochs: 1", "tokens: 400k").replace("seed: 0\n", "")
    with pytest.raises(UserError) as caught:
        RunDirectory.create(run.path, changed, {})
    for part in (
        "strategy.replay.ratio (0.05 there, 0.1 here)",
        "stream.0.tokens (nothing there, 400k here)",
        "seed (0",
    ):
        assert part in str(caught.value)
    reordered = CONFIG.replace(
        "{replay: {ratio: 0.05}, ewc: {strength: 1.0}}", "{ewc: {strength: 1.0}, replay: {ratio: 0.05}}"
    )
    with pytest.raises(UserError, match="the order of replay, ewc"):
        RunDirectory.create(run.path, reordered, {})


def test_overwrite_removes_the_files_of_the_run_and_nothing_else(run, tmp_path):
    run.add_results([{"point": 0}])
    run.write_answers(0, "exam", {"question": [1]})
    elsewhere = tmp_path / "big-disk"
    elsewhere.mkdir()
    (elsewhere / "weights").write_text("precious")
    run.checkpoints.symlink_to(elsewhere)
    (run.path / "notes.txt").write_text("mine")
    again = RunDirectory.create(run.path, CONFIG.replace("0.05", "0.1"), {}, overwrite=True)
    assert again.results() == []
    assert files_under(run.path) == {"config.yaml", "environment.json", "status.json", "notes.txt"}
    assert (elsewhere / "weights").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, overwrite):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match=r"not a run \(config\.yaml, model\)"):
        RunDirectory.create(tmp_path, CONFIG, {}, overwrite=overwrite)
    assert files_under(tmp_path) == {"model", "config.yaml"}
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="file is a file"):
            RunDirectory.create(path, CONFIG, {}, overwrite=overwrite)


def test_a_run_killed_before_its_configuration_was_written_may_begin_again(run):
    (run.path / "config.yaml").unlink()
    assert run.may_go_on(CONFIG)
    RunDirectory.create(run.path, CONFIG, {})
    assert run.config()["name"]


def test_going_on_forgets_what_came_after_the_checkpoint(run):
    run.add_results([{"point": point, "benchmark": name} for point in range(3) for name in "ab"])
    for step in range(10):
        run.add_training({"step": step})
    for point in range(3):
        run.write_answers(point, "a", {"question": [1]})
    (run.path / "answers" / "2" / ".b.parquet.123").write_text("half")
    run.set_status("stopped", "interrupted")
    run.go_on(points=2, steps=7)
    assert {name for name in files_under(run.path) if "parquet" in name} == {
        "answers/0/a.parquet",
        "answers/1/a.parquet",
    }
    assert [row["point"] for row in run.results()] == [0, 0, 1, 1]
    assert [row["step"] for row in run.training()] == list(range(7))
    assert (run.status()["state"], run.status()["pid"]) == ("running", os.getpid())


def test_what_is_no_run_is_refused_with_runs_nearby(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, problem in (("runn", "no such folder"), (".", "not the folder of a run"), ("run/config.yaml", "a file")):
        with pytest.raises(UserError, match=rf"{problem}.*nearby: .*run") as caught:
            RunDirectory.open(Path(path))
        assert "runs found nearby" in str(caught.value)
    with pytest.raises(UserError, match="clmed run"):
        RunDirectory.open(tmp_path / "far" / "away")


def test_a_full_disk_is_told_with_the_folder_and_leaves_the_old_file(run, monkeypatch):
    def full(self, content):
        with self.open("wb") as stream:
            stream.write(content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=f"{run.path}: the disk is full"):
        run.set_status("complete")
    assert json.loads((run.path / "status.json").read_text())["state"] == "running"
    assert files_under(run.path) == {"config.yaml", "environment.json", "status.json"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_while_appending(run):
    (run.path / "train.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="the disk is full"):
        run.add_training({"step": 1})
