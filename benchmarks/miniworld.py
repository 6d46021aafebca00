"""The table and figure of docs/results/miniworld.md: every strategy's experiment file on MiniWorld, with several seeds.

    make miniworld-table          (or: python benchmarks/miniworld.py --seeds 0 1 2 --jobs 2)

Runs go to runs/miniworld/; a complete one is not repeated. The experiment files are the settings, as they stand.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clmed.results.plots import plot_runs
from clmed.results.rundir import RunDirectory, is_run

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "miniworld"
PAGE = ROOT / "docs" / "results" / "miniworld.md"
STRATEGIES = ("naive", "replay", "ewc", "interleave", "joint")
COLUMNS = (
    ("synthetic-cmexam", "all"),
    ("synthetic-mmlu", "covered"),
    ("synthetic-mmlu", "uncovered"),
    ("synthetic-cmmlu", "covered"),
    ("synthetic-cmmlu", "uncovered"),
)
START, END = "<!-- table: written by benchmarks/miniworld.py -->", "<!-- end of table -->"


def main() -> None:
    """Run what is missing, then write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    options = parser.parse_args()
    runs = [(strategy, seed) for seed in options.seeds for strategy in STRATEGIES]
    run(*runs[0])  # alone: it makes the base model for all
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda which: run(*which), runs[1:]))
    write(table(options.seeds))
    draw(options.seeds[0])


def run(strategy: str, seed: int) -> None:
    """One run in a process of its own, unless it is there."""
    folder = RUNS / f"{strategy}-{seed}"
    if is_run(folder) and RunDirectory.open(folder).status()["state"] == "complete":
        return
    command = [sys.executable, "-m", "clmed", "run", f"experiments/{strategy}.yaml", f"seed={seed}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "-o", folder, "--overwrite"], cwd=ROOT, env=environment, check=True)


def final(strategy: str, seed: int) -> dict[str, Any]:
    """Scores of the base (first) and the end (last) by column, and the costs at the end."""
    rows = RunDirectory.open(RUNS / f"{strategy}-{seed}").results()
    last = max(row["point"] for row in rows)
    scores = {(r["point"], r["benchmark"], r["category"]): r["score"] for r in rows if r["metric"] == "accuracy"}
    costs = next(row for row in reversed(rows) if row["point"] == last)
    found: dict[str, Any] = {key: costs[key] for key in ("tokens", "all_tokens", "flops", "train_seconds")}
    return found | {
        "base": [100 * scores[0, *column] for column in COLUMNS],
        "end": [100 * scores[last, *column] for column in COLUMNS],
    }


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def table(seeds: Sequence[int]) -> str:
    """Markdown: accuracy in % at the end, mean ± standard deviation over the seeds, and what it cost."""
    heads = [f"{benchmark} {category}" for benchmark, category in COLUMNS]
    heads = ["strategy", *heads, "domain tokens", "all tokens", "TFLOP", "training s"]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    base = final(STRATEGIES[0], seeds[0])["base"]
    lines.append(f"| *base* | {' | '.join(f'{score:.1f}' for score in base)} | 0 | 0 | 0 | 0 |")
    for strategy in STRATEGIES:
        found = [final(strategy, seed) for seed in seeds]
        cells = [spread([run["end"][i] for run in found]) for i in range(len(COLUMNS))]
        cells += [f"{statistics.mean(run[key] for run in found):,.0f}" for key in ("tokens", "all_tokens")]
        cells += [f"{statistics.mean(run['flops'] for run in found) / 1e12:.1f}"]
        cells += [f"{statistics.mean(run['train_seconds'] for run in found):.0f}"]
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(markdown: str) -> None:
    """Put the table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n{markdown}\n{END}{after}", encoding="utf-8")
    print(markdown)


def draw(seed: int) -> None:
    """The forgetting curves of one seed, beside the page."""
    drawn = plot_runs([RUNS / f"{s}-{seed}" for s in STRATEGIES], PAGE.parent, only=["forgetting"])
    for figure in drawn:
        figure.replace(PAGE.with_name(f"synthetic-miniworld{figure.suffix}"))


if __name__ == "__main__":
    main()
