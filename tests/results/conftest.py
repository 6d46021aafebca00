"""make_run: a small but lifelike run directory, written through RunDirectory."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lifelike import lifelike_rows

from clmed.results.rundir import RunDirectory


@pytest.fixture
def make_run() -> Callable[..., Path]:
    def make(path: Path, name: str = "naive", seed: int = 0, state: str = "complete", **rows) -> Path:
        written = f"name: {name}\nseed: {seed}\nstrategy: {{{name}: }}\n"
        run = RunDirectory.create(path, written, {"python": "3.11"})
        run.add_results(lifelike_rows(seed=seed, **rows))
        run.set_status(state, "a test")
        return path

    return make
