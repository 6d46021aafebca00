"""Work on several processes: the same results in the same order, a bounded number ahead, and no process left over."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clmed.config import SourceConfig
from clmed.data import rows as rows_module
from clmed.data import workers
from clmed.data.rows import prepare
from clmed.data.workers import in_order
from clmed.errors import UserError
from tests.data.test_rows import make_texts, write_jsonl


def square(number: int) -> int:
    time.sleep(0.01 * (number % 3))  # so that results come out of order
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_order_and_number_ahead(monkeypatch):
    monkeypatch.setattr(workers, "LEAD", 3)
    taken = 0

    def numbers():
        nonlocal taken
        for number in range(60):
            taken += 1
            yield number

    for place, found in enumerate(in_order(square, numbers(), 2)):
        assert found == place * place
        assert taken <= place + 7  # its own, the next that was looked for, and what two processes have waiting
    assert taken == 60
    assert list(in_order(square, range(3), 2)) == [0, 1, 4]  # nothing is left for processes


def test_a_process_that_dies_is_told(monkeypatch):
    monkeypatch.setattr(workers, "LEAD", 0)
    with pytest.raises(UserError, match="a process that tokenises has died"):
        list(in_order(die, range(5), 2))


def test_rows_are_the_same_for_any_number_of_workers(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(workers, "LEAD", 1)
    monkeypatch.setattr(rows_module, "_BATCH_CHARACTERS", 2**12)
    path = write_jsonl(tmp_path / "a.jsonl", make_texts(600))
    for form in ("text", "qa"):
        source = SourceConfig(path="x", format=form, question="text", answer="text")
        made = set()
        for number in (1, 2, 3):
            prepare("a", source, path, "train", tokenizer, 64, cache=tmp_path / f"{form}{number}", workers=number)
            (file,) = (tmp_path / f"{form}{number}").glob("rows/*/rows.arrow")
            made.add(hashlib.sha256(file.read_bytes()).hexdigest())
        assert len(made) == 1


ENDLESS = """
from itertools import count
from clmed.data import workers
from tests.data.test_workers import with_pid

if __name__ == "__main__":
    workers.LEAD = 0
    for pid in workers.in_order(with_pid, count(), 2):
        print(pid, flush=True)
"""


def with_pid(number: int) -> int:
    return os.getpid()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_process_outlives_one_that_is_killed(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    here = str(Path(__file__).parent.parent.parent)
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": here}
    )
    assert process.stdout is not None
    pids = {int(process.stdout.readline()) for _ in range(20)}
    assert all(map(alive, pids))
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_the_bar_shows_the_share_and_the_speed(tmp_path, tokenizer, monkeypatch):
    """On a terminal (a real one, of its own) the making of rows shows tokens, tokens a second and per cent."""
    import pty

    from clmed.data import progress

    monkeypatch.setattr(progress, "_PATIENCE", -1.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(rows_module, "_BATCH_CHARACTERS", 2**12)
    main, other = pty.openpty()
    with os.fdopen(other, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        path = write_jsonl(tmp_path / "a.jsonl", make_texts(400))
        rows = prepare("texts", SourceConfig(path="x", format="text"), path, "train", tokenizer, 64, cache=tmp_path)
        terminal.flush()
        shown = os.read(main, 2**20).decode()
    os.close(main)
    assert "tokenising texts (train): " in shown and "tokens/s" in shown and "100%" in shown
    assert f"{rows['tokens'][:].sum():,} tokens" in shown
    assert json.loads(next(tmp_path.glob("rows/*/counts.json")).read_text())["tokens"] == np.sum(rows["tokens"][:])
