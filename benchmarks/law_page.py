"""The tables and the picture of docs/results/law.md, from the folder that holds the runs of both domains.

python benchmarks/law_page.py runs
"""

import sys
from pathlib import Path

from measure import write_part
from smollm2_page import tables

from clmed.results.plots import figures
from clmed.results.plots.style import render
from clmed.results.rundir import RunDirectory

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "law.md"
METHODS = ["naive", "replay"]


def main(folder: Path) -> None:
    """Runs are `law-naive`, `law-replay` and the same of `spanish`."""
    for domain in ("law", "spanish"):
        runs = [RunDirectory.open(folder / f"{domain}-{method}") for method in METHODS]
        write_part(PAGE, domain, tables(runs, by="run"))
    picture = figures([folder / f"law-{method}" for method in METHODS])["forgetting"]()
    PAGE.with_suffix(".png").write_bytes(render(picture, "png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
