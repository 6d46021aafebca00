"""A task, or a group of tasks, read: its questions chosen, its prompts written, what cannot be asked refused."""

import hashlib
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.harness.model import greedy
from clmed.evaluation.harness.tasks import find_task, hushed, manager

SEED, NUMPY_SEED, SHOTS_SEED = 0, 1234, 1234
"""The harness's own defaults."""


class Written:
    """A task whose prompts are written. When the harness has them written again, before each evaluation, only the last
    answers are dropped."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build_all_requests(self, **settings: object) -> None:
        """Be as new."""
        for instance in self._task.instances:
            instance.resps, instance.filtered_resps = [], {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Suite:
    """`tasks` and `groups` by their names, of which `name` is one; `chosen`: the questions of a sample, by task."""

    name: str
    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]
    chosen: Mapping[str, Sequence[int]] | None

    def write_prompts(self) -> None:
        """Each task's `instances`, in the order of its questions."""
        for name, task in self.tasks.items():
            task.set_fewshot_seed(SHOTS_SEED)
            task.build_all_requests(samples=None if self.chosen is None else self.chosen[name])

    def shots(self, name: str) -> int | None:
        """How many a task shows, or all tasks of a group; None where they differ."""
        tasks = self.groups[name].get_all_tasks() if name in self.groups else [self.tasks[name]]
        shown = {task.get_config("num_fewshot") for task in tasks}
        return shown.pop() if len(shown) == 1 else None

    def questions(self) -> list[tuple[str, int, list[Any]]]:
        """(task, row of its file, what is asked) in the order of the record, when the prompts have been written."""
        found: dict[tuple[str, int], list[Any]] = {}
        for name, task in self.tasks.items():
            for instance in task.instances:
                found.setdefault((name, instance.doc_id), []).append(instance)
        return [
            (name, row if self.chosen is None else self.chosen[name][row], asked)
            for (name, row), asked in found.items()
        ]


def read_suite(config: BenchmarkConfig, local: Path | None, positions: int, say: Callable[[str], object]) -> Suite:
    """Read the questions of `config.task`, from the hub or where its file says, and write the prompts.

    local: a folder of the user's own task files; positions: the most tokens that the model takes.
    Raises UserError where the questions cannot be had and where the task asks for what is not done here.
    """
    with undisturbed():
        name, tasks, groups = load_tasks(config, local)
        _set_shots(config, tasks, say)
        chosen = None if config.questions is None else _sample(tasks, config.questions)
        if chosen is not None:
            tasks = {name: task for name, task in tasks.items() if name in chosen}
        suite = Suite(name=name, tasks=tasks, groups=groups, chosen=chosen)
        with redirect_stderr(io.StringIO()):
            suite.write_prompts()
    for task in tasks.values():
        for asked in task.instances:
            if asked.request_type == "generate_until":
                greedy(task.task_name, asked.args[1], positions)
    return suite


def load_tasks(config: BenchmarkConfig, local: Path | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The name of `config.task`, its tasks with their questions, and its groups.

    Raises UserError where the questions cannot be had and where the task runs code or shows pictures.
    """
    name = find_task(config, local)
    try:
        loaded = manager(local).load([name])
    except Exception as error:  # a task is code of anybody's, and reads from anywhere
        why = str(error).strip().splitlines() or [""]
        raise UserError(f"{config.benchmark} cannot be read: {type(error).__name__}: {why[0]}") from error
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            what = "runs code that a model wrote" if getattr(task, "UNSAFE_CODE", False) else "shows more than text"
            raise UserError(f"lm_eval/{task.task_name} {what}, which clmed does not do.")
    return name, loaded["tasks"], loaded["groups"]


def _set_shots(config: BenchmarkConfig, tasks: Mapping[str, Any], say: Callable[[str], object]) -> None:
    """As in the harness, a task whose file says 0 shots is never shown any."""
    wanted, never = config.given_shots, []
    for name, task in tasks.items():
        own = task.get_config("num_fewshot")
        if own == 0 and wanted:
            never.append(name)
        else:
            task.set_config("num_fewshot", (own or 0) if wanted is None else wanted)
    if never and len(never) == len(tasks):
        raise UserError(f"{config.benchmark} is always asked without shots: its own file says so. Leave out `shots`.")
    if never:
        say(f"{config.label}: asked without shots, as their own files say: {', '.join(never)}")


def _sample(tasks: Mapping[str, Any], count: int) -> dict[str, list[int]]:
    """The `count` questions with the smallest hashes, by task: the same ones in every run and on every machine."""
    keys = sorted(
        (hashlib.sha256(f"{name}\n{json.dumps(doc, sort_keys=True, default=str)}".encode()).digest(), name, index)
        for name, task in tasks.items()
        for index, doc in enumerate(task.eval_docs)
    )
    chosen: dict[str, list[int]] = {}
    for _, name, index in keys[:count]:
        chosen.setdefault(name, []).append(index)
    return {name: sorted(chosen[name]) for name in tasks if name in chosen}


@contextmanager
def undisturbed() -> Iterator[None]:
    """The harness's seeds inside, since tasks may draw from them; outside, all random numbers as they were."""
    python, array = random.getstate(), np.random.get_state()
    random.seed(SEED)
    np.random.seed(NUMPY_SEED)
    try:
        with hushed():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
