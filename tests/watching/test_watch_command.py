"""`clmed watch`: a real run that is killed and goes on, seen from outside; files that grow; what the panel says."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from clmed import experiment, validation, watching
from clmed.results.rundir import RunDirectory
from clmed.watching.follow import Follower, Seen
from clmed.watching.panel import panel
from clmed.watching.tail import Tail
from tests.command import in_process, write_tiny

LONG = ["stream.0.tokens=16k", "training.save_every=2", "name=long"]


def shown(seen: Seen) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(panel("run", seen))
    return out.getvalue()


def test_a_run_that_is_killed_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watched from before it begins; killed for real in its first experience; then to its end."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    path = tmp_path / "runs" / "long"
    command = [sys.executable, "-m", "clmed", "run", "tiny.yaml", *LONG]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    out, ended = io.StringIO(), []

    def watch() -> None:
        ended.append(watching.until_over(path, Console(file=out, width=120), every=0.05))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        looks = _until(path, lambda seen: len(seen.steps) > 3)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    watcher.join(30)
    assert ended == [1]
    assert "pretraining 1 of 2" in out.getvalue() and "killed: its process is gone" in out.getvalue()
    assert out.getvalue().count("waiting for a run") == 1  # without a terminal it is said once, then the last look
    assert {seen.state for seen in looks} == {"running"}
    seen = looks[-1]
    assert (
        seen.done is not None and 3000 < seen.done[0] < seen.done[1] and seen.done[1] == pytest.approx(16_000, rel=0.1)
    )
    assert set(seen.losses) == {"medical", "english"} and seen.tokens_per_second and seen.seconds_left

    follower = Follower(RunDirectory.open(path))
    follower.look()
    run = experiment.run(validation.load("tiny.yaml", LONG), path)
    again = follower.look()  # of files that were replaced when it went on
    assert again.state == "complete" and again.over
    assert again.results == run.results() and again.steps == run.training()[-50:]
    steps = [(row["experience"], row["step"]) for row in again.steps]
    assert len(steps) == len(set(steps))
    assert watching.once(path, Console(file=io.StringIO())) == 0


def _until(path: Path, enough: Callable[[Seen], bool], seconds: float = 240) -> list[Seen]:
    """Looks at a run until it has come far enough."""
    end, looks, follower = time.monotonic() + seconds, [], None
    while time.monotonic() < end:
        if (path / "status.json").exists():
            follower = follower or Follower(RunDirectory(path))
            looks.append(follower.look())
            if enough(looks[-1]):
                return looks
        time.sleep(0.02)
    raise AssertionError(f"not there within {seconds} s: {looks[-1:]}")


# ---------------------------------------------------------------------- files that grow


def test_a_torn_line_is_left_for_the_next_look(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    tail = Tail(file)
    assert tail.rows() == ([], False)
    file.write_text('{"step": 1}\n{"st')
    assert tail.rows() == ([{"step": 1}], True)
    with file.open("a") as stream:
        stream.write('ep": 2}\nnot json\n[3]\n{"step": 4}\n')
    assert tail.rows() == ([{"step": 2}, {"step": 4}], False)
    assert tail.rows() == ([], False)


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    file, new = tmp_path / "train.jsonl", tmp_path / "new"
    file.write_text('{"step": 1}\n{"step": 2}\n')
    tail = Tail(file)
    tail.rows()
    new.write_text('{"step": 1}\n')
    new.replace(file)
    assert tail.rows() == ([{"step": 1}], True)
    file.unlink()
    assert tail.rows() == ([], True)


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    lines = [json.dumps({"step": step}) + "\n" for step in range(1000)]
    file.write_text("".join(lines))
    tail = Tail(file, most=100)
    rows, _ = tail.rows()
    assert rows == [{"step": step} for step in range(1000 - len(rows), 1000)] and 5 < len(rows) < 10
    with file.open("a") as stream:
        stream.write('{"step": 1000}\n')
    assert tail.rows() == ([{"step": 1000}], False)


# ---------------------------------------------------------------------- what is known, of a run written by hand

PLAN = [
    {"name": "one", "steps": 10, "tokens": 1000, "begin": 0, "points": 2, "first_point": 1},
    {"name": "two", "steps": 5, "tokens": 500, "begin": 1000, "points": 1, "first_point": 3},
]


def begun(path: Path, steps: int = 4, **status: Any) -> RunDirectory:
    config = {"name": "run", "evaluation": {"retention": [{"benchmark": "mmlu"}], "floors": {"mmlu": -2.0}}}
    run = RunDirectory.create(path, yaml.safe_dump(config), {})
    run.set_plan(PLAN)
    for step in range(1, steps + 1):
        row = {"experience": "one", "step": step, "tokens": 100 * step, "all_tokens": 125 * step, "lr": 1e-3}
        run.add_training({**row, "loss": 2.0, "loss/medical": 2.5, "tokens_per_second": 250.0})
    for point, right in enumerate((100, 60)):
        place = {"point": point, "experience": "one" if point else "base", "tokens": 300 * point, "final": not point}
        row = {"role": "retention", "benchmark": "mmlu", "category": "all", "metric": "accuracy", "seconds": 7.0}
        run.add_results([{**place, **row, "score": right / 100, "questions": 100, "shots": 0}])
        run.write_answers(point, "mmlu", {"correct": [number < right for number in range(100)]})
    file = path / "status.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | status))
    return run


def test_place_speed_and_time_left(tmp_path: Path) -> None:
    seen = Follower(begun(tmp_path / "run")).look()
    assert seen.state == "running" and not seen.over
    assert seen.done == (400, 1000)
    assert seen.tokens_per_second == 250.0
    # 6 steps here and 5 there at 125 / 250 s each, and two points of 7 s
    assert seen.seconds_left == pytest.approx(11 * 0.5 + 2 * 7)
    text = shown(seen)
    for words in ("one 1 of 2", "400 of 1k domain tokens", "step 4 of 10", "250 tokens/s  about 20 s left"):
        assert words in text
    assert "2.000   medical 2.500" in text and "1.00e-03" in text
    assert "point 1: one, 300 domain tokens" in text and "−40.0" in text
    assert "floor crossed: mmlu changed by -40.00 points of accuracy" in text


def test_before_the_first_step(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "name: run\n", {})
    assert "measuring the model to start with" in shown(Follower(run).look())


def test_without_a_configuration_no_floor_is_known(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    (run.path / "config.yaml").unlink()
    text = shown(Follower(run).look())
    assert "point 1: one" in text and "floor" not in text


def test_a_score_that_is_none_is_passed_over(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    row = {"point": 0, "tokens": 0, "experience": "base", "role": "gain", "benchmark": "exam", "category": "all"}
    row |= {"shots": 0, "questions": 1, "final": True}
    known = Follower(run).look().results
    run.add_results([row | {"metric": "accuracy", "score": score} for score in (None, 0.5)])
    assert [each["score"] for each in Follower(run).look().results] == [*(each["score"] for each in known), 0.5]


def test_a_row_that_is_no_step_is_passed_over(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    known = Follower(run).look()
    run.add_trainings([{}, {"step": 5}, {"experience": "one", "tokens": 500, "loss": 2.0}])
    seen = Follower(run).look()
    assert seen.steps == known.steps
    assert seen.damage == [
        f"{run.path / 'train.jsonl'} is damaged: 2 lines are passed over; `clmed report` names the first"
    ]


def test_how_it_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ends = {
        "complete": ({"state": "complete"}, 0, "complete"),
        "stopped": ({"state": "stopped", "reason": "asked to"}, 75, "stopped: asked to"),
        "killed": ({"pid": 2**22 + 1}, 1, "killed: its process is gone"),
        "running": ({}, 0, "running"),
    }
    for name, (status, code, words) in ends.items():
        begun(tmp_path / name, **status)
        done = in_process(capfd, "watch", str(tmp_path / name), "--once")
        assert (done.code, words in done.out) == (code, True), done
        if name != "running":
            assert in_process(capfd, "watch", str(tmp_path / name)).code == code
    in_process(capfd, "watch", str(tmp_path / "complet"), "--once").is_mistake("no such folder", "complete")


def test_a_process_on_another_machine_cannot_be_seen(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", host="node7", pid=1)
    seen = Follower(run).look()
    assert seen.state == "elsewhere" and not seen.over and seen.silent < 60
    assert "running on node7, last sign of life" in shown(seen) and "is it still there" not in shown(seen)
    hour_ago = time.time() - 3600
    for name in ("status.json", "train.jsonl", "results.jsonl"):
        os.utime(run.path / name, (hour_ago, hour_ago))
    assert "is it still there" in shown(Follower(run).look())


# ---------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\xff\xfe" * 50, "results.jsonl is damaged: its last line is cut off"),
        (b"\x00\xff\n\xfe\n", "results.jsonl is damaged: 2 lines are passed over"),
        (b'{"point": 0, "score": null}\n', "results.jsonl is damaged: a line is passed over"),
        (b"", "results.jsonl holds no scores"),
        (None, "results.jsonl cannot be read (Is a directory)"),
    ],
)
def test_damaged_results_are_told(
    content: bytes | None,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = begun(Path("run"), state="complete").path / "results.jsonl"
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    for arguments in (["--once"], []):
        done = in_process(capfd, "watch", "run", *arguments)
        assert done.code == 0 and "complete" in done.out and f"run/{words}" in done.out


def test_of_damaged_answers_or_an_odd_plan_the_rest_is_shown(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", plan=[{"name": "one"}])
    run.write_answers(1, "mmlu", {"correct": [True] * 3})
    text = shown(Follower(run).look())
    assert "point 1: one" in text and "floor" not in text


def test_what_is_waited_for_is_said_without_a_terminal(tmp_path: Path) -> None:
    """A run that is not there, whose status is damaged, and is mended."""
    path, out, ended = tmp_path / "run", io.StringIO(), []
    watcher = threading.Thread(
        target=lambda: ended.append(watching.until_over(path, Console(file=out, width=500), every=0.02))
    )
    watcher.start()
    _until_said(out, f"waiting for a run in {path}")
    path.mkdir()
    (path / "status.json").write_text('{"state": "comp')
    _until_said(out, f"{path / 'status.json'} is damaged: waiting until it is mended or the run is made anew")
    made = begun(tmp_path / "made", state="complete").path
    made.joinpath("results.jsonl").replace(path / "results.jsonl")
    made.joinpath("status.json").replace(path / "status.json")
    watcher.join(30)
    assert ended == [0] and out.getvalue().count("waiting") == 2


def _until_said(out: io.StringIO, words: str) -> None:
    end = time.monotonic() + 60
    while words not in out.getvalue():
        assert time.monotonic() < end, out.getvalue()
        time.sleep(0.02)
