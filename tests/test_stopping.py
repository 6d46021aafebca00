"""How a run ends before its time: Ctrl-C, a loss that is no number, a full disk. Nothing half-written looks whole."""

import gc
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, modeling_utils

from clmed.lifetime import asked_to_stop
from clmed.results.rundir import RunDirectory
from tests.command import Done, checkpoint_files, files, in_process, write_tiny

MODEL_FILES = {
    *(f"{name}.json" for name in ("config", "generation_config", "tokenizer", "tokenizer_config")),
    "model.safetensors",
}
LONG = "stream.0.tokens=10M"


@pytest.fixture
def tiny(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The experiment file, in the current folder; one cache for all of these tests."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    return write_tiny(tmp_path).name


def ctrl_c(until: str, *command: str) -> Done:
    """Run `python -m ...` on a terminal and press Ctrl-C as soon as `until` appears; what it wrote is `out`."""
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever runs the tests in the background has it ignored
        os.execv(sys.executable, [sys.executable, "-m", *command])
    written, pressed = b"", False
    while part := _read(terminal):
        written += part
        if not pressed and re.search(until.encode(), written):
            os.write(terminal, b"\x03")
            pressed = True
    return Done(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), written.decode(), "")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells that the other side is closed
        return b""


# The progress bar of the first experience, which begins after the base model is measured.
TRAINING = r"(?s)measured cmexam.*tokens  loss [0-9.]+  lr [0-9.e-]+  [0-9.k]+/s [^\r\n]*[0-9]:[0-9][0-9]:[0-9][0-9]"


def _is_interrupted(run: Path) -> None:
    """The run directory says so, and what it holds is whole."""
    directory = RunDirectory.open(run)
    assert (directory.status()["state"], directory.status()["reason"]) == ("stopped", "interrupted")
    assert {name.split("/")[0] for name in files(run)} - {"checkpoints"} == {
        *("config.yaml", "environment.json", "status.json", "sources.json", "train.jsonl", "results.jsonl", "answers"),
        "log.txt",
    }
    assert all((checkpoint / "manifest.json").exists() for checkpoint in directory.checkpoints.glob("*"))
    assert not list(directory.checkpoints.glob(".*"))
    assert directory.training() and {row["point"] for row in directory.results()} >= {0}
    assert "interrupted; what was trained and measured so far is in" in directory.log.read_text()


def test_ctrl_c_stops_a_run_on_a_terminal(tiny: str, capfd: pytest.CaptureFixture[str]) -> None:
    done = ctrl_c(TRAINING, "clmed", "run", tiny, "-o", "run", LONG)
    assert done.code == 130
    assert "interrupted; what was trained and measured so far is in run\r\n" in done.out
    assert done.out.rstrip().endswith("stopped") and "Traceback" not in done.out
    assert done.out.rindex("\x1b[?25h") > done.out.rindex("\x1b[?25l"), "the cursor stays hidden"
    _is_interrupted(Path("run"))


def test_ctrl_c_stops_all_processes(tiny: str) -> None:
    command = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "clmed", "run", tiny, "-o", "run", LONG)
    started = time.monotonic()
    done = ctrl_c(TRAINING, *command)
    assert done.code != 0
    ours, _, torchruns = done.out.partition("Traceback")  # torchrun ends with one of its own
    assert ours.count("stopped") == 2, torchruns
    assert not re.search(r"/clmed/(experiment|cli|training/\w+)\.py", torchruns)
    assert time.monotonic() - started < 100, "torchrun had to kill processes that did not stop"
    _is_interrupted(Path("run"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_where_python_drops_it(ranks: int) -> None:
    """In a callback of the garbage collector, whose exceptions are printed and forgotten."""
    trainer: Any = SimpleNamespace(world=SimpleNamespace(ranks=ranks), stop_asked=False)
    handlers = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}

    def pressed(phase: str, _: object) -> None:
        if phase == "stop" and dropped:
            signal.raise_signal(dropped.pop())

    dropped = [signal.SIGINT]
    gc.callbacks.append(pressed)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), asked_to_stop(trainer):
            gc.collect()
            time.sleep(60)
    finally:
        gc.callbacks.remove(pressed)
        for which, handler in handlers.items():
            signal.signal(which, handler)
    assert not dropped


def test_ctrl_c_while_data_are_read_leaves_nothing(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from clmed import experiment

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "load_tokenizer", interrupted)
    done = in_process(capfd, "run", tiny, "-o", "run")
    assert (done.code, done.err.strip()) == (130, "stopped")
    assert not Path("run").exists()


def test_a_loss_that_is_no_number_keeps_the_last_good_weights(tiny: str, capfd: pytest.CaptureFixture[str]) -> None:
    change = "stream.1.optimizer={lr: 1e30, warmup: 0.7, decay: constant}"
    done = in_process(capfd, "run", tiny, "-o", "run", change)
    run = RunDirectory.open(Path("run"))
    steps = [row["step"] for row in run.training() if row["experience"] == "finetuning"]
    failed = len(steps) + 1
    done.is_mistake(f"Experience 'finetuning', step {failed}: the loss is", "run/checkpoints/last-good")
    status = run.status()
    assert (status["state"], status["reason"]) == ("stopped", done.err.strip())
    assert done.err.strip() in run.log.read_text()
    assert not run.model.exists()
    pretrained = len(run.training()) - len(steps)
    assert {name for name in files(run.path) if name.startswith("checkpoints/")} == {
        *(f"checkpoints/last-good/{name}" for name in MODEL_FILES),
        *checkpoint_files(f"{pretrained:08d}-1"),
    }
    weights = AutoModelForCausalLM.from_pretrained(run.checkpoints / "last-good").state_dict()
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """small_disk(kilobytes) -> a folder on a file system of that size, where this user may mount one.

    Called again it makes the file system larger.
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted: list[Path] = []

    def mount(kilobytes: int) -> Path:
        options = f"size={kilobytes}k" + (",remount" if mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "clmed-test", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small file system can only be mounted by root")
        mounted[:] = [folder]
        return folder

    yield mount
    for each in mounted:
        subprocess.run(["umount", str(each)], check=True)


@pytest.mark.parametrize(
    ("kilobytes", "culprit", "ended", "going_on"),
    [
        (28, "/answers/0", 0, ""),  # the results of the base
        (240, "/checkpoints/00000006-1", 1, "starts again"),
        (500, "/checkpoints/00000009-2", 2, "goes on from 00000006-1"),
        (740, "", 2, ""),  # the model
    ],
)
def test_a_full_disk(
    tiny: str,
    capfd: pytest.CaptureFixture[str],
    small_disk: Callable[[int], Path],
    kilobytes: int,
    culprit: str,
    ended: int,
    going_on: str,
) -> None:
    """Whatever it is that no longer fits (checkpoints have 280 kB, the model 200); with more space the run goes on."""
    folder = small_disk(kilobytes) / "run"
    done = in_process(capfd, "run", tiny, "-o", str(folder))
    done.is_mistake(f"{folder}{culprit}: the disk is full", going_on)
    assert done.err.count("\n") == 1, "torch.distributed.checkpoint has its say, too"
    run = RunDirectory.open(folder)
    trained = ["pretraining", "finetuning"]  # the second may have begun while the end of the first was being saved
    assert set(trained[:ended]) <= {row["experience"] for row in run.training()} <= set(trained[: ended + 1])
    checkpoints = [name for name in ("00000006-1", "00000009-2")[:ended] if name not in culprit]
    written = files(folder).keys()
    assert {name for name in written if name.startswith("checkpoints/")} == checkpoint_files(*checkpoints)
    assert {name.split("/")[0] for name in written} - {"checkpoints"} <= {
        *("config.yaml", "environment.json", "status.json", "sources.json", "train.jsonl", "results.jsonl", "answers"),
        "log.txt",
    }
    if not ended:
        assert not run.training()
        assert run.status()["state"] != "complete"
        return
    # What was half-written is gone, so that there is room again to say why.
    assert run.status() == {**run.status(), "state": "stopped", "reason": done.err.strip()}

    small_disk(4000)
    done = in_process(capfd, "run", tiny, "-o", str(folder))
    assert done.code == 0 and ("going on from" in done.out) == bool(checkpoints)
    assert run.status()["state"] == "complete" and {row["point"] for row in run.results()} == {0, 1, 2, 3}
    assert [row["step"] for row in run.training()] == [1, 2, 3, 4, 5, 6, 1, 2, 3]


def test_a_full_disk_for_the_model_anywhere(
    tiny: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that safetensors really has for it, where no file system can be mounted."""

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(modeling_utils, "safe_save_file", full)
    in_process(capfd, "run", tiny, "-o", "run").is_mistake("run: the disk is full")
    run = RunDirectory.open(Path("run"))
    assert (run.status()["state"], run.status()["reason"].split(":")[0]) == ("stopped", "run")
    assert not any("model" in name for name in files(run.path))
    assert "the disk is full" in run.log.read_text()


def test_a_disk_that_is_full_when_the_figures_are_drawn(
    tiny: str, capfd: pytest.CaptureFixture[str], small_disk: Callable[[int], Path]
) -> None:
    """The run is whole without them; no half of a figure is left."""
    folder = small_disk(950) / "run"
    in_process(capfd, "run", tiny, "-o", str(folder)).is_mistake(f"{folder}/figures", "the disk is full")
    assert RunDirectory.open(folder).status()["state"] == "complete"
    assert not {name for name in files(folder) if name.startswith("figures/")}
