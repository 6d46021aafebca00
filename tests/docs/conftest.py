"""A reader of the pages."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.results.whole_runs import whole_run

KEEPS = {"naive": 0.0, "replay": 0.8, "ewc": 0.4}
# Where on the pages a run lies, and of which method it is.
RUNS = {
    **{name: name for name in KEEPS},
    "demo": "replay",
    "law-naive": "naive",
    "law-replay": "replay",
    "smollm2-english-naive": "naive",
    "smollm2-english-replay": "replay",
}


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with experiments/ of the checkout, and the runs that pages speak of as if they had been made."""
    folder = tmp_path_factory.mktemp("reader")
    for place, name in RUNS.items():
        whole_run(folder / "runs" / place, name=name, keeps=KEEPS[name])
    for name, strategy in (("naive", {}), ("replay", {"replay": {"ratio": 0.25, "from": ["general"]}})):
        for seed in (0, 1):
            path = folder / "runs" / f"{name}-sweep" / f"seed={seed}"
            whole_run(path, name=name, seed=seed, keeps=KEEPS[name], strategy=strategy)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    return folder
