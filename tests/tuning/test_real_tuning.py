"""A tuning with real runs: what is recorded costs what was planned, and the command tells what came out."""

from pathlib import Path

import pytest
import yaml

from clmed.results.rundir import RunDirectory
from tests.command import TINY, process
from tests.tuning.test_tuning import TUNING


@pytest.mark.full
def test_runs_cost_the_same_and_the_report_tells_them(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    stream = [each | {"tokens": 20_000, "measure_at": []} for each in TINY["stream"]]
    for name, strategy in (("plain", {}), ("rehearsing", TINY["strategy"])):
        text = yaml.safe_dump(TINY | {"name": name, "strategy": strategy, "stream": stream}, sort_keys=False)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "tuning.yaml").write_text(yaml.safe_dump(TUNING, sort_keys=False), encoding="utf-8")
    done = process(tmp_path, "clmed", "tune", "tuning.yaml", "trials=2", "seeds=[1]", "--jobs", "2")
    assert done.code == 0, done.out + done.err
    out = tmp_path / "runs" / "two-tuning"
    spent = {
        run.name: RunDirectory(run).results()[-1]["flops"]
        for part in ("trials", "test")
        for run in (out / part).glob("*-*")
        if run.is_dir()
    }
    assert len(spent) in (6, 7, 8)
    # Whole rows, and a step's at that: within a step of 1,024 tokens of 40,000.
    assert max(spent.values()) / min(spent.values()) < 1.06, spent
    assert (out / "choice.json").exists() and "## Where was looked" in (out / "tuning.md").read_text()
    assert "tuning.md" in done.out and "arXiv 2403.08763" in done.out
