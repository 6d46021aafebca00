"""The tasks by name: found before any work, refused with the nearest name."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from clmed.complaints import did_you_mean
from clmed.config import BenchmarkConfig
from clmed.errors import UserError

MOST_NAMES = 8


def manager(folder: Path | None) -> Any:
    """The harness's list of its own tasks and of those in `folder`, which come first."""
    return _manager(None if folder is None else folder.resolve())


@cache  # it takes seconds to make
def _manager(folder: Path | None) -> Any:
    from lm_eval.tasks import TaskManager

    with hushed():
        return TaskManager(include_path=None if folder is None else str(folder))


@contextmanager
def hushed() -> Iterator[None]:
    """Of the harness's messages only errors are told."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def find_task(config: BenchmarkConfig, folder: Path | None) -> str:
    """The name of the task, or of the group of tasks, that `config.benchmark` means.

    Raises UserError where lm_eval is not installed, for an unknown name, and for one that has no score of its own.
    """
    name = config.task
    assert name is not None, "an exam is not a task of the harness"
    if find_spec("lm_eval") is None:
        raise UserError(f"{config.benchmark} needs lm-evaluation-harness: pip install 'clmed[lm_eval]'")
    found = manager(folder).task_index
    if name not in found:
        hint = did_you_mean(name, found)
        where = "" if folder is None else f" and none in {folder}"
        raise UserError(
            f"lm_eval has no task '{name}'{where}{hint if hint.startswith(';') else '; `lm-eval ls tasks` lists them'}"
        )
    entry = found[name]
    if entry.kind.name == "TAG":
        raise UserError(
            f"'{name}' is a tag of several tasks of lm_eval, without a score of its own: name {_some(entry.tags)}"
        )
    if entry.kind.name == "GROUP" and not (entry.cfg or {}).get("aggregate_metric_list"):
        parts = (entry.cfg or {}).get("task") or []
        names = [part if isinstance(part, str) else str(part.get("task", part.get("group"))) for part in parts]
        raise UserError(f"'{name}' is a group of lm_eval without a score of its own: name {_some(names)}")
    return name


class Place(NamedTuple):
    """Where the questions of a task are: the split of a data set of the hub, or local files."""

    hub: str
    subset: str | None
    split: str
    files: tuple[Path, ...] = ()


def places(config: BenchmarkConfig, folder: Path | None) -> list[Place]:
    """Where the files of `config.task`, or of the tasks of that group, say that the questions are.

    Nothing is read there. A task that is Python code does not say. Raises UserError as `find_task`.
    """
    name = find_task(config, folder)
    return [place for task in _leaves(name, manager(folder).task_index) if (place := _place(task)) is not None]


def _leaves(task: str | Mapping[str, Any], index: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The settings of a task, or of all tasks of a group or tag, by name or as they stand in a group's file."""
    own = {} if isinstance(task, str) else task
    parts = own.get("task") if "group" in own else None
    entry = None if parts is not None else index.get(task if isinstance(task, str) else str(own.get("task")))
    if entry is not None and entry.kind.name == "TAG":
        parts = sorted(entry.tags)
    elif entry is not None and entry.kind.name == "GROUP":
        parts = (entry.cfg or {}).get("task")
    if parts is None:
        yield {**((entry.cfg if entry is not None else None) or {}), **own}
        return
    for part in [parts] if isinstance(parts, str) else parts:
        yield from _leaves(part, index)


def _place(task: Mapping[str, Any]) -> Place | None:
    hub, split = task.get("dataset_path"), task.get("test_split") or task.get("validation_split")
    if not isinstance(hub, str) or not isinstance(split, str):
        return None
    files = (task.get("dataset_kwargs") or {}).get("data_files") or ()
    files = files.get(split, ()) if isinstance(files, Mapping) else files
    paths = tuple(Path(file) for file in ([files] if isinstance(files, str) else files))
    return Place(hub=hub, subset=task.get("dataset_name"), split=split, files=paths)


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" (and {len(listed) - MOST_NAMES} more)" if len(listed) > MOST_NAMES else ""
    return " or ".join(listed[:MOST_NAMES]) + more
