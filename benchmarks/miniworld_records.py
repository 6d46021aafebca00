"""A run on MiniWorld and what it found, in docs/results/miniworld.csv: one line a run."""

import csv
import fcntl
import io
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clmed import yamlfile
from clmed.config import fingerprint, load
from clmed.quantities import measurement_point
from clmed.results.files import write_whole
from clmed.results.rundir import VARIANTS, RunDirectory

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
RUNS = ROOT / "runs" / "miniworld"
RECORDS = ROOT / "docs" / "results" / "miniworld.csv"
COLUMNS = (
    ("synthetic-cmexam", "all"),
    ("synthetic-mmlu", "all"),
    ("synthetic-mmlu", "covered"),
    ("synthetic-mmlu", "uncovered"),
    ("synthetic-cmmlu", "all"),
    ("synthetic-cmmlu", "covered"),
    ("synthetic-cmmlu", "uncovered"),
)
WORLDS = ("miniworld", "miniworld-1", "miniworld-2")
NEAR = 0.02  # FLOPs that differ by no more count as equal
COSTS = ("tokens", "all_tokens", "flops", "train_seconds")
WHEN = ("base", "end")
HEADER = [
    *("file", "seed", "world", "scale", "alpha", "fingerprint", "commit", *COSTS),
    *(f"{when} {' '.join(column)}" for when in WHEN for column in COLUMNS),
]


@dataclass(frozen=True, kw_only=True)
class Run:
    """file: of experiments/, without its ending; scale: of all domain token budgets, to reach the FLOPs of another."""

    file: str
    seed: int
    world: str = "miniworld"
    scale: float = 1.0

    def __str__(self) -> str:
        return f"{self.world} seed {self.seed} {self.file}" + (f" x {self.scale}" if self.scale != 1 else "")

    @property
    def path(self) -> Path:
        return EXPERIMENTS / f"{self.file}.yaml"

    def overrides(self) -> list[str]:
        """As of `clmed run`."""
        given = [f"seed={self.seed}", f"data_root={self.world}"]
        if self.scale == 1:
            return given
        for number, experience in enumerate(load(self.path).stream):
            assert experience.tokens is not None
            marks = [round(self.scale * measurement_point(mark)[0]) for mark in experience.measure_at]
            given.append(f"stream.{number}.tokens={round(self.scale * experience.tokens)}")
            given.append(f"stream.{number}.measure_at={marks}")
        return given

    def fingerprint(self) -> str:
        """Of what the experiment file says, with the overrides, and without what a default is."""
        tree = yamlfile.read(self.path, self.overrides()).data
        return fingerprint([tree, list(tree.get("strategy") or {})])

    def found(self, folder: Path) -> "list[Record]":
        """That of the run's end, and one for each α that `average` traced there."""
        directory = RunDirectory.open(folder)
        rows = directory.results()
        end = [row for row in rows if row["point"] == rows[-1]["point"]]
        made = Record(
            run=self,
            fingerprint=self.fingerprint(),
            commit=_commit(),
            base=_scores(row for row in rows if row["point"] == 0),
            end=_scores(end),
            **{key: end[-1][key] for key in COSTS},
        )
        traced = [row for row in directory.results(VARIANTS) if row["point"] == rows[-1]["point"]]
        alphas = sorted({row["alpha"] for row in traced})
        at = [replace(made, alpha=alpha, end=_scores(r for r in traced if r["alpha"] == alpha)) for alpha in alphas]
        return [made, *at]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run found. base, end: accuracy in % by COLUMNS; alpha: of a point on the line between two models."""

    run: Run
    fingerprint: str
    commit: str
    base: tuple[float, ...]
    end: tuple[float, ...]
    tokens: int
    all_tokens: int
    flops: float
    train_seconds: float
    alpha: float | None = None

    @property
    def above_base(self) -> tuple[float, float]:
        """(gain, retention): how far the exam, and the mean of the two general exams, are above the base's, in %."""
        exam, english, chinese = (
            self.end[place] - self.base[place]
            for place in (
                COLUMNS.index((name, "all")) for name in ("synthetic-cmexam", "synthetic-mmlu", "synthetic-cmmlu")
            )
        )
        return exam, (english + chinese) / 2


def methods() -> list[str]:
    """Experiment files that extend another, naive first, without the trivial front."""
    found = [file.stem for file in EXPERIMENTS.glob("*.yaml") if "\nextends:" in file.read_text(encoding="utf-8")]
    return sorted(found, key=lambda name: (name != "naive", name))


def read_records() -> list[Record]:
    """Those in the file whose experiment files have not changed since."""
    if not RECORDS.exists():
        return []
    with RECORDS.open(encoding="utf-8", newline="") as file:
        found = [_record(row) for row in csv.DictReader(file)]
    return [record for record in found if record.run.path.exists() and record.fingerprint == record.run.fingerprint()]


def add_records(records: Iterable[Record]) -> None:
    """Put them among the others, sorted; of the same run the last one stays. Who does it at the same time waits."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = {_place(record): record for record in [*read_records(), *records]}
        text = io.StringIO()
        table = csv.DictWriter(text, HEADER, lineterminator="\n")
        table.writeheader()
        table.writerows(_row(rows[place]) for place in sorted(rows))
        write_whole(RECORDS, text.getvalue().encode())


def _place(record: Record) -> tuple[Any, ...]:
    run = record.run
    return run.world, run.scale != 1, run.file, run.scale, run.seed, -1.0 if record.alpha is None else record.alpha


def _row(record: Record) -> dict[str, Any]:
    names = [f"{when} {' '.join(column)}" for when in WHEN for column in COLUMNS]
    scores = dict(zip(names, (f"{score:.2f}" for score in (*record.base, *record.end)), strict=True))
    run, alpha = record.run, "" if record.alpha is None else record.alpha
    made = {"file": run.file, "seed": run.seed, "world": run.world, "scale": run.scale, "alpha": alpha}
    return made | {key: getattr(record, key) for key in ("fingerprint", "commit", *COSTS)} | scores


def _record(row: Mapping[str, str]) -> Record:
    return Record(
        run=Run(file=row["file"], seed=int(row["seed"]), world=row["world"], scale=float(row["scale"])),
        alpha=float(row["alpha"]) if row["alpha"] else None,
        fingerprint=row["fingerprint"],
        commit=row["commit"],
        base=tuple(float(row[f"base {' '.join(column)}"]) for column in COLUMNS),
        end=tuple(float(row[f"end {' '.join(column)}"]) for column in COLUMNS),
        tokens=int(row["tokens"]),
        all_tokens=int(row["all_tokens"]),
        flops=float(row["flops"]),
        train_seconds=float(row["train_seconds"]),
    )


def _scores(rows: Iterable[Mapping[str, Any]]) -> tuple[float, ...]:
    found = {(row["benchmark"], row["category"]): row["score"] for row in rows if row["metric"] == "accuracy"}
    return tuple(100 * found[column] for column in COLUMNS)


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
