"""The run directory: the only place that knows its file names.

    config.yaml  environment.json  status.json  sources.json  train.jsonl  results.jsonl
    answers/<point>/<benchmark>.parquet
    variants.jsonl (like results.jsonl: weights measured beside the run's own, each row with what they are)
    checkpoints/  model/  exports/<point>/  figures/  report.html  log.txt  tensorboard/  wandb/

A process may be killed at any moment, so whole files are written beside their place and renamed, and the line files
only grow by whole lines: a torn last line is what a killed run leaves, and is passed over; other damage is an error.
"""

import difflib
import io
import json
import os
import shutil
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from clmed.errors import UserError
from clmed.results.differences import differences
from clmed.results.files import (
    append_lines,
    disk_errors,
    read_json,
    read_lines,
    unreadable,
    write_json,
    write_lines,
    write_whole,
)

State = Literal["running", "complete", "stopped"]
Row = dict[str, Any]

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with libyaml

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
STATUS = "status.json"
SOURCES = "sources.json"
TRAIN = "train.jsonl"
RESULTS = "results.jsonl"
VARIANTS = "variants.jsonl"
ANSWERS = "answers"
CHECKPOINTS = "checkpoints"
MODEL = "model"
EXPORTS = "exports"
FIGURES = "figures"
REPORT = "report.html"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
LOG = "log.txt"
# status.json comes last: while a directory is being emptied it stays recognisable as a run.
RUN_FILES = (
    CONFIG, ENVIRONMENT, SOURCES, TRAIN, RESULTS, VARIANTS, ANSWERS, CHECKPOINTS, MODEL, EXPORTS, FIGURES, REPORT,
    TENSORBOARD, WANDB, LOG, STATUS,
)  # fmt: skip


class _Inside:
    """The path of something inside a run, made when it is asked for: thousands of runs are opened for a comparison."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "RunDirectory", kind: type) -> Path:
        return run.path / self.name


class RunDirectory:
    """The files of one run. The constructor touches nothing: see `create` (to write) and `open` (to read)."""

    checkpoints = _Inside(CHECKPOINTS)
    model = _Inside(MODEL)
    exports = _Inside(EXPORTS)
    figures = _Inside(FIGURES)
    report = _Inside(REPORT)
    tensorboard = _Inside(TENSORBOARD)
    wandb = _Inside(WANDB)
    log = _Inside(LOG)

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(
        cls, path: Path, config_yaml: str, environment: Mapping[str, Any], overwrite: bool = False
    ) -> "RunDirectory":
        """A fresh run in `path`, in state `running`. In a distributed run only the first process calls this.

        Raises UserError as `refuse_if_taken` does. `overwrite` removes the files of the run and nothing else.
        """
        run = cls(path)
        config = yaml.safe_load(config_yaml)
        run.refuse_if_taken(config_yaml, overwrite)
        with disk_errors(run.path):
            if is_run(run.path):
                run._clear()
            run.path.mkdir(parents=True, exist_ok=True)
        # The status first: it is what makes the directory a run, whenever this is interrupted.
        write_json(run.path / STATUS, {**_running(), "fingerprint": _fingerprint(config)})
        write_whole(run.path / CONFIG, config_yaml.encode())
        write_json(run.path / ENVIRONMENT, environment)
        return run

    def refuse_if_taken(self, config_yaml: str, overwrite: bool = False) -> None:
        """Raise UserError when a new run must not go here; nothing is changed.

        That is when there is a run (complete or of another configuration) and `overwrite` is false; and always when
        that run is still going, or there are files but no run. An unfinished run of the same configuration may go on.
        """
        with disk_errors(self.path):
            there = next(each for each in (self.path, *self.path.absolute().parents) if each.exists())
            if not there.is_dir():
                raise UserError(f"{there} is a file, not a folder for a run; give another folder with --output.")
            if is_run(self.path):
                if _is_alive(status := self.status()):
                    raise UserError(
                        f"{self.path} holds a run that is still going (process {status['pid']}); stop it first."
                    )
                if not overwrite and not self.may_go_on(config_yaml):
                    raise UserError(self._why_taken(yaml.safe_load(config_yaml)))
            elif others := _visible_files(self.path):
                raise UserError(
                    f"{self.path} holds files that are not a run ({_some(others)}), and they are not touched, with "
                    "--overwrite neither; give another folder with --output, or move them away."
                )

    def may_go_on(self, config_yaml: str) -> bool:
        """Whether this is the run of this configuration, stopped or killed before its end."""
        if not is_run(self.path):
            return False
        old = self.config()  # empty if it was killed before it was written
        if old and differences(old, yaml.safe_load(config_yaml)):
            return False
        status = self.status()
        return status["state"] != "complete" and not _is_alive(status)

    def is_complete(self, config_yaml: str) -> bool:
        """Whether this is the run of this configuration, finished."""
        if not is_run(self.path) or self.status()["state"] != "complete":
            return False
        return not differences(self.config(), yaml.safe_load(config_yaml))

    def go_on(self, *, points: int, steps: int) -> None:
        """Take up an unfinished run at a checkpoint: forget what was written after it.

        points, steps: measurement points and training steps until then; the rest will be written again.
        """
        kept = {name: [row for row in self.results(name) if row["point"] < points] for name in (RESULTS, VARIANTS)}
        for name, rows in {**kept, TRAIN: self.training()[:steps]}.items():
            if rows or name != VARIANTS or (self.path / name).exists():
                write_lines(self.path / name, rows)
        for folder in (self.path / ANSWERS).glob("*"):
            if int(folder.name) >= points:  # with what was being written when it was killed
                shutil.rmtree(folder)
        write_json(self.path / STATUS, {**self.status(), **_running()})

    def copy_points(self, source: "RunDirectory", points: int, benchmarks: Collection[str]) -> None:
        """Take over what `source` measured at its first `points` points, marked with where it was measured."""
        mark = {"taken_from": str(source.path)}
        own = [row for row in source.results() if row["point"] < points and row["benchmark"] in benchmarks]
        for point, benchmark in dict.fromkeys((row["point"], row["benchmark"]) for row in own):
            file = source.answers_file(point, benchmark)
            if file.exists():
                write_whole(self.answers_file(point, benchmark), file.read_bytes())
        self.add_results([mark | row for row in own])
        if variants := [row for row in source.results(VARIANTS) if row["point"] < points]:
            self.add_results([mark | row for row in variants], VARIANTS)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """The run in `path`, for reading. Raises UserError, which names runs nearby, when there is none."""
        path = Path(path)
        if is_run(path):
            return cls(path)
        if not path.exists():
            problem = "there is no such folder"
        elif not path.is_dir():
            problem = "this is a file; give the folder of a run"
        else:
            problem = f"this is not the folder of a run (it holds no valid {STATUS})"
        nearby = _runs_near(path)
        hint = f"runs found nearby: {_some(nearby)}" if nearby else "`clmed run FILE` makes one"
        raise UserError(f"{path}: {problem}; {hint}.")

    def config(self) -> dict[str, Any]:
        """The configuration as a plain mapping; empty if the run was killed before it was written."""
        file = self.path / CONFIG
        if not file.exists():
            return {}
        try:
            config = yaml.load(file.read_text(encoding="utf-8"), Loader=LOADER)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error
        except OSError as error:
            raise unreadable(file, error) from error
        if not isinstance(config, dict):
            raise UserError(f"{file} is damaged: it holds no configuration.")
        return config

    def environment(self) -> dict[str, Any]:
        """Versions, machine, ranks; empty if the run was killed before they were written."""
        return read_json(self.path / ENVIRONMENT)

    def status(self) -> dict[str, Any]:
        """state: running (or killed), complete or stopped; reason: why; fingerprint: of the configuration; lineage;
        plan."""
        return json.loads((self.path / STATUS).read_bytes())

    def state(self) -> Literal["running", "killed", "complete", "stopped"]:
        """What the run is doing; one on another machine that says it is running is taken to be killed."""
        status = self.status()
        state: State = status["state"]
        alive = _is_alive(status) or (status.get("pid"), status.get("host")) == (os.getpid(), socket.gethostname())
        return "killed" if state == "running" and not alive else state

    def set_status(self, state: State, reason: str = "") -> None:
        write_json(self.path / STATUS, {**self.status(), "state": state, "reason": reason})

    def set_lineage(self, keys: Sequence[str]) -> None:
        """Note in the status what the run's experiences are known by (clmed/lineage.py)."""
        write_json(self.path / STATUS, {**self.status(), "lineage": list(keys)})

    def set_plan(self, plan: Sequence[Mapping[str, Any]]) -> None:
        """Note in the status what is to come, an entry an experience (clmed/planning/outline.py)."""
        write_json(self.path / STATUS, {**self.status(), "plan": list(plan)})

    def set_sources(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        """Note what the model to start with makes of each source (clmed/evaluation/familiarity.py)."""
        write_json(self.path / SOURCES, sources)

    def sources(self) -> dict[str, dict[str, Any]]:
        """What was noted; empty if nothing was yet."""
        return read_json(self.path / SOURCES)

    def add_results(self, rows: Iterable[Mapping[str, Any]], file: str = RESULTS) -> None:
        """Append measured scores (file: or those of VARIANTS); the rows given at once are written at once."""
        append_lines(self.path / file, rows)

    def results(self, file: str = RESULTS) -> list[Row]:
        """Every measured score so far, in the order of measuring."""
        return read_lines(self.path / file)

    def add_training(self, row: Mapping[str, Any]) -> None:
        """Append what one training step had to say."""
        self.add_trainings([row])

    def add_trainings(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append what several steps had to say."""
        append_lines(self.path / TRAIN, rows)

    def training(self) -> list[Row]:
        return read_lines(self.path / TRAIN)

    def has_trained(self) -> bool:
        """Whether a training step was written, without reading them."""
        file = self.path / TRAIN
        return file.exists() and file.stat().st_size > 0

    def write_answers(self, point: int, benchmark: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Keep the answers to each question: equally long columns, one entry a question."""
        import pyarrow
        import pyarrow.parquet

        table, buffer = pyarrow.table(dict(columns)), io.BytesIO()
        pyarrow.parquet.write_table(table, buffer, compression="zstd")
        write_whole(self.answers_file(point, benchmark), buffer.getvalue())

    def has_answers(self, point: int, benchmark: str) -> bool:
        return self.answers_file(point, benchmark).exists()

    def answers(self, point: int, benchmark: str, columns: Collection[str] | None = None) -> dict[str, list[Any]]:
        """The columns given to `write_answers`, or those of `columns` that there are."""
        import pyarrow
        import pyarrow.parquet

        file = self.answers_file(point, benchmark)
        if not file.exists():
            raise UserError(f"{file}: this run kept no answers to {benchmark} at point {point}.")
        try:
            kept = pyarrow.parquet.ParquetFile(file)
            wanted = None if columns is None else [name for name in kept.schema_arrow.names if name in columns]
            return kept.read(wanted).to_pydict()
        except (pyarrow.ArrowException, OSError) as error:  # the latter of one that was cut off, or is a folder
            raise UserError(f"{file} is damaged: {error}") from error

    def answers_shape(self, point: int, benchmark: str) -> tuple[int, list[str]]:
        """How many rows there are, and which columns."""
        import pyarrow
        import pyarrow.parquet

        file = self.answers_file(point, benchmark)
        try:
            kept = pyarrow.parquet.ParquetFile(file)
            return kept.metadata.num_rows, kept.schema_arrow.names
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{file} is damaged: {error}") from error

    def answers_file(self, point: int, benchmark: str) -> Path:
        # A name may hold a slash ("org/corpus"); the percent sign keeps the escape unambiguous.
        return self.path / ANSWERS / str(point) / f"{benchmark.replace('%', '%25').replace('/', '%2F')}.parquet"

    def _why_taken(self, config: Mapping[str, Any]) -> str:
        """Why a new run of `config` must not go into this directory, and the way out."""
        old = self.config()
        if old and (changes := differences(old, config)):
            return (
                f"{self.path} holds a run of another configuration: {_some(changes, separator='; ')}. Give another "
                "folder with --output or another `name`; --overwrite deletes the old run."
            )
        return f"{self.path} holds this very run, complete: nothing to do; --overwrite starts again."

    def _clear(self) -> None:
        for name in RUN_FILES:
            file = self.path / name
            # A linked folder (checkpoints on another disk) loses its link, not what it points to.
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)


def _fingerprint(config: Mapping[str, Any]) -> str:
    """That of the ExperimentConfig whose dump this is. The order of strategies is the order of their callbacks."""
    from clmed.config import fingerprint

    return fingerprint({**config, "strategy": [list(item) for item in (config.get("strategy") or {}).items()]})


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a run: other programs have a config.yaml too, so the status decides."""
    try:
        status = json.loads((path / STATUS).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(status, dict) and status.get("state") in ("running", "complete", "stopped")


def _runs_near(path: Path) -> list[str]:
    """Runs above, inside and beside `path` and in ./runs, the most alike names first."""
    parents = [path, path.parent, Path("runs")]
    inside = [child for parent in parents if parent.is_dir() for child in sorted(parent.iterdir())]
    found = dict.fromkeys(str(folder) for folder in [*path.parents, *inside] if is_run(folder))

    def unlikeness(run: str) -> float:
        return -difflib.SequenceMatcher(None, Path(run).name, path.name).ratio()

    return sorted(found, key=unlikeness)


def _visible_files(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if not file.name.startswith(".")) if path.is_dir() else []


def _some(items: Sequence[str], separator: str = ", ", most: int = 4) -> str:
    rest = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + rest


def _running() -> dict[str, Any]:
    """The status of a run that this process does."""
    own = os.getpid()
    return {"state": "running", "reason": "", "pid": own, "began": _began(own), "host": socket.gethostname()}


def _is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process that does a run is still there: numbers come again, but not with the same beginning.

    It may be a notebook's, of any name. One on another machine is taken to be gone.
    """
    here = status["state"] == "running" and status.get("host") == socket.gethostname()
    if not here or status.get("pid") == os.getpid():
        return False
    began = _began(status.get("pid"))
    return began is not None and began == status.get("began")


def _began(pid: int | None) -> int | None:
    """When a process began, in the kernel's ticks since the machine did; None if there is none."""
    try:
        _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")  # its name may hold spaces
    except OSError:
        return None
    state, *rest = fields.split()
    return None if state == "Z" else int(rest[18])  # a zombie has ended
