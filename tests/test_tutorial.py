"""The tutorial as a reader follows it: every block is saved under its caption, every command run, in order."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import in_process

PAGE = Path(__file__).parent.parent / "docs" / "tutorial" / "new-strategy.md"
BLOCK = re.compile(r"```(?:\{code-block\} \w+\n:caption: (?P<file>\S+)\n\n|console\n)(?P<text>.*?)```", re.DOTALL)


def test_a_strategy_of_ones_own_for_another_domain(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").symlink_to(real_data)
    commands = []
    for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"], encoding="utf-8")
        else:
            commands += [run(capfd, line.removeprefix("$ ")) for line in block["text"].splitlines()]
    assert len(commands) == 8
    naive, leash = scores("naive"), scores("leash")
    (law, law_naive), (_, law_leash) = naive["law_perplexity"], leash["law_perplexity"]
    (other, other_naive), (_, other_leash) = naive["other_perplexity"], leash["other_perplexity"]
    assert law_naive < law_leash < law, "naive training learns more of the law, the leash some of it"
    assert other < other_leash < other_naive, "and forgets more of the rest"
    steps = [json.loads(line) for line in Path("runs/leash/train.jsonl").read_text().splitlines()]
    assert steps[-1]["leash_reached"] > 0
    assert list(Path("figures").glob("*.png"))


def run(capfd: pytest.CaptureFixture[str], line: str) -> None:
    """A command of the page: clmed in this process, anything else in one of its own."""
    words = re.findall(r'"([^"]*)"|(\S+)', line)
    program, *arguments = [quoted or word for quoted, word in words]
    if program == "clmed":
        done = in_process(capfd, *arguments)
        assert done.code == 0, f"{line}\n{done.out}{done.err}"
        return
    assert program == "python"
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)


def scores(name: str) -> dict[str, tuple[float, float]]:
    """(before, after) of every benchmark of a run, all questions together."""
    found: dict[str, list[float]] = {}
    for line in Path("runs", name, "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["category"] == "all" and row["metric"] in ("accuracy", "nats_per_token"):
            found.setdefault(row["benchmark"], []).append(row["score"])
    return {benchmark: (values[0], values[-1]) for benchmark, values in found.items()}
