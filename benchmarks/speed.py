"""All tables of docs/results/speed.md, in one command: each benchmark in a process of its own, one after the other.

    make speed-tables      (or: python benchmarks/speed.py [--data ../shared/data] [--gguf FILE] [--only training …])

On an otherwise idle machine, where they take about two hours. Those that need real exams (--data, by default
$CLMED_REAL_DATA) are left as they are where the folder is absent; --gguf is evaluation.py's.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from measure import write_part

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "results" / "speed.md"
# What is between <!-- NAME --> and <!-- end of NAME --> in the page, and the command that makes it.
TABLES: dict[str, list[str]] = {
    "training": ["training.py"],
    "checkpoint": ["checkpoint.py"],
    "finetuning": ["finetuning.py", "--data", "{data}"],
    "data": ["data.py", "--data", "{data}"],
    "cleaning": ["cleaning.py", "{data}"],
    "evaluation": ["evaluation.py", "--data", "{data}"],
    "comparing": ["comparing.py"],
}


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CLMED_REAL_DATA", "../shared/data")))
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    options = parser.parse_args()
    for name in options.only:
        command = [part.format(data=options.data.resolve()) for part in TABLES[name]]
        if name == "evaluation" and options.gguf:
            command += ["--gguf", str(options.gguf.resolve())]
        if "{data}" in TABLES[name] and not options.data.is_dir():
            print(f"{name}: left as it is, there is no folder {options.data}")
            continue
        print(f"{name}: python benchmarks/{' '.join(command)}", flush=True)
        made = subprocess.run(
            [sys.executable, HERE / command[0], *command[1:]],
            cwd=HERE.parent,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        write_part(PAGE, name, made.stdout.strip())


if __name__ == "__main__":
    main()
