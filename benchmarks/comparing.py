"""Time and memory of `clmed compare` on thousands of runs with hundreds of subjects.

    python benchmarks/comparing.py [--runs 10000] [--subjects 200] [--folder FOLDER]

The run directories are generated (2,000 configurations with five seeds each; three benchmarks of 500 questions at the
base and at the end, one of them by subject) and removed at the end, unless a folder is given. Files are in the disk
cache: reading 1.4 GB from a cold disk takes the disk's time.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clmed.results.rundir import CONFIG, RESULTS, STATUS
from clmed.yamlfile import dump, read

ROOT = Path(__file__).parent.parent
SEEDS = 5
BENCHMARKS = {"exam": ("gain", 0.25, 0.3), "mmlu": ("retention", 0.6, -0.1), "cmmlu": ("retention", 0.5, -0.05)}


def main() -> None:
    """Generate, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="Where the runs are generated, and used again if they are there.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        generate(folder, options.runs, options.subjects)
        rows = sum(file.read_bytes().count(b"\n") for file in folder.glob("*/results.jsonl"))
        print(f"{options.runs:,} runs, {rows:,} rows of results.\n")
        lines = []
        for by in ("strategy", "run"):
            seconds, cpu, peak = measured(["compare", str(folder), "--by", by, "--format", "csv"])
            lines.append([f"`clmed compare --by {by}`", f"{seconds:.1f}", f"{cpu:.1f}", f"{peak / 1e6:,.0f}"])
    print("| command | seconds | CPU seconds | peak MB |\n|---|---:|---:|---:|")
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


def generate(folder: Path, runs: int, subjects: int) -> None:
    """Run directories that are not there yet."""
    base = read(ROOT / "experiments" / "base.yaml").data
    same = dump({key: value for key, value in base.items() if key not in ("name", "seed")})
    for number in range(runs):
        path = folder / f"run-{number:05d}"
        if path.exists():
            continue
        path.mkdir(parents=True)
        strategy = {"replay": {"ratio": round(0.0001 * (number // SEEDS), 4)}} if number >= SEEDS else {}
        own = dump({"name": path.name, "seed": number % SEEDS, "strategy": strategy})
        (path / CONFIG).write_text(own + same)
        (path / RESULTS).write_text("".join(lines_of(number, subjects)))
        (path / STATUS).write_text(json.dumps({"state": "complete", "reason": "", "fingerprint": ""}))


def lines_of(number: int, subjects: int) -> list[str]:
    """As RunWriter writes them: the whole scores of three benchmarks and the subjects of one, at two points."""
    noise = random.Random(number)
    lines = []
    for point, tokens in ((0, 0), (1, 610_000)):
        place = {"point": point, "tokens": tokens, "all_tokens": tokens, "bytes": 4 * tokens, "flops": 2e6 * tokens}
        place |= {"experience": "medical-pretraining" if point else "base", "final": True, "train_seconds": 60.0}
        for name, (role, score, change) in BENCHMARKS.items():
            common = {**place, "role": role, "benchmark": name, "shots": 0, "seconds": 1.0}
            for category in ["all", *(f"subject:{i:03d}" for i in range(subjects if name == "mmlu" else 0))]:
                found = min(1.0, max(0.0, score + point * change + noise.gauss(0, 0.02)))
                row = {**common, "category": category, "metric": "accuracy", "score": found, "questions": 500}
                lines.append(json.dumps({**row, "constant": 0.25, "majority": 0.27, "skipped": 0}) + "\n")
    return lines


def measured(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds, those of the processor, and peak bytes of a command in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "clmed", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the command failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
