"""Small files of questions for tests, and the benchmark that is read from them."""

import csv
import json
from pathlib import Path
from typing import Any

from clmed.config import BenchmarkConfig
from clmed.evaluation.benchmarks import Benchmark, load_benchmark


def load(benchmark: str, local: Path | None, shots_local: Path | None = None, **settings: Any) -> Benchmark:
    return load_benchmark(BenchmarkConfig(benchmark=benchmark, **settings), local, shots_local)


def jsonl(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def table(path: Path, *rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
