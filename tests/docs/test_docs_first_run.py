"""The tutorial "Your first run", typed from its beginning to its end."""

import json
import shlex
from pathlib import Path

import pytest

from tests.command import in_process
from tests.docs.pages import ROOT, Block, blocks

PAGE = "docs/tutorial/first-run.md"
SHORT = ["stream.0.tokens=50k", "stream.1.tokens=11k", "stream.0.measure_at=[10k, 25k]"]
PROGRAM, DEMO = "clmed ", "clmed run experiments/replay.yaml -o runs/demo"


def commands() -> list[str]:
    """What is typed, in its order; `make demo` as what it runs once there is an environment."""

    def typed(block: Block) -> list[str]:
        lines = block.text.splitlines()
        return [line.removeprefix("$ ") for line in lines if block.kind == "sh" or line.startswith("$ ")]

    found = [line for block in blocks("sh", "console") if block.page == PAGE for line in typed(block)]
    assert found[:2] == ["make demo", "source .venv/bin/activate"]
    assert f"{DEMO} --overwrite".removeprefix(PROGRAM) in (ROOT / "Makefile").read_text()
    return [DEMO, *found[2:]]


@pytest.mark.full
def test_from_its_beginning_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a tenth of the tokens."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for line in commands():
        words = shlex.split(line.removeprefix(PROGRAM))
        done = in_process(capfd, *words, *(SHORT if words[0] in ("run", "sweep") else []))
        assert done.code == 0, f"{line}\n{done.err}"
    assert (tmp_path / "report.html").stat().st_size and (tmp_path / "my-model" / "config.json").exists()
    compared = ("compare", "runs/naive-sweep", "runs/replay-sweep", "--by", "strategy", "--format", "json")
    assert [row["seeds"] for row in json.loads(in_process(capfd, *compared).out)["rows"]] == [[0, 1, 2, 3, 4]] * 2
