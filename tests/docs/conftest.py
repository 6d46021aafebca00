"""A reader of the pages."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.results.whole_runs import whole_run


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with experiments/ of the checkout, and the runs that pages speak of as if they had been made."""
    folder = tmp_path_factory.mktemp("reader")
    for place, name, keeps in (
        ("naive", "naive", 0.0),
        ("demo", "replay", 0.8),
        ("replay", "replay", 0.8),
        ("ewc", "ewc", 0.4),
        ("law-naive", "naive", 0.0),
        ("law-replay", "replay", 0.8),
        ("smollm2-english-naive", "naive", 0.0),
        ("smollm2-english-replay", "replay", 0.8),
    ):
        whole_run(folder / "runs" / place, name=name, keeps=keeps)
    (folder / "experiments").symlink_to(ROOT / "experiments")
    return folder
