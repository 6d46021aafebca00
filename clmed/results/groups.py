"""Which runs make a row: each its own, or all seeds of one strategy; which row is the reference, which are trivial."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed.results.differences import differences
from clmed.results.runs import Run
from clmed.results.statistics.verdicts import seeds_needed

# What a run may differ in from another seed of the same strategy.
NO_MATTER = ("name", "seed", "watching", "evaluation", "from")
KEEPING = (
    "save_every", "checkpoints_kept", "keep_at", "keep_measured", "asynchronous_saves", "share_experiences", "device",
    "threads",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of a row, all of one strategy; needed: so many seeds make a statement about the strategy."""

    label: str
    runs: tuple[Run, ...]
    needed: int

    @property
    def counted(self) -> tuple[Run, ...]:
        """The complete runs: the scores half way of another seed would spoil their mean. Without one, all."""
        return tuple(run for run in self.runs if run.ended) or self.runs

    @property
    def ended(self) -> bool:
        """Whether all did."""
        return all(run.ended for run in self.runs)

    @property
    def strategy(self) -> dict[str, Any]:
        return self.runs[0].strategy

    @property
    def state(self) -> str:
        """One word where all runs agree, else how many are in which."""
        states = [run.state for run in self.runs]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        return states[0] if len(counts) == 1 else ", ".join(f"{count} {state}" for state, count in counts.items())


def by_run(runs: Sequence[Run]) -> list[Group]:
    """Each run a row, called by its name; of one name by their seeds, and if these agree, too, by their folders."""
    shared = Path(os.path.commonpath([run.path.absolute().parent for run in runs]))
    names = Counter(run.name for run in runs)
    seeds = Counter((run.name, run.seed) for run in runs)

    def label(run: Run) -> str:
        if names[run.name] == 1:
            return run.name
        return f"{run.name} (seed {run.seed})" if seeds[run.name, run.seed] == 1 else folder(run)

    def folder(run: Run) -> str:
        return str(run.path.absolute().relative_to(shared))

    return [Group(label=label(run), runs=(run,), needed=1) for run in runs]


def by_strategy(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ in their seeds only are a row.

    It is called by their name or, where they have several, by the strategy; rows of one name by their strategies or by
    what else they differ in, repetitions by their folders. A run without a configuration (damaged) stays alone.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        key = _key(run.config) if run.config else str(run.path)
        if any(other.seed == run.seed for other in found.get(key, ())):
            key += f" {run.path}"  # the same seed again: a repetition, which is not another seed
        found.setdefault(key, []).append(run)
    labels = _apart(list(found.values()))
    return [
        Group(label=label, runs=tuple(sorted(same, key=_seed)), needed=seeds_needed(same[0].config))
        for label, same in zip(labels, found.values(), strict=True)
    ]


def reference(groups: Sequence[Group]) -> Group:
    """Naive training where there is some with results, rather one of this name; else the first.

    The trivial front holds naive training at other rates, too.
    """
    usable = [group for group in groups if any(run.whole for run in group.runs)] or list(groups)
    naive = [group for group in usable if is_naive(group.strategy) and group.runs[0].config]
    return next((group for group in naive if "naive" in group.runs[0].name), (naive or usable)[0])


def is_naive(strategy: Mapping[str, Any]) -> bool:
    return not strategy or list(strategy) == ["naive"]


def strategy_text(strategy: Mapping[str, Any]) -> str:
    """`replay (ratio 0.05) + ewc (strength 100.0)`."""
    parts = [
        f"{name} ({', '.join(f'{key} {value}' for key, value in given.items())})" if given else name
        for name, given in strategy.items()
    ]
    return " + ".join(parts) or "naive"


def _seed(run: Run) -> int:
    return run.seed


def _apart(rows: Sequence[Sequence[Run]]) -> list[str]:
    """A label of its own for each."""
    labels = [_label(same) for same in rows]
    first: dict[str, int] = {}
    for number, (label, same) in enumerate(zip(list(labels), rows, strict=True)):
        if (before := first.setdefault(label, number)) == number:
            continue
        one, other = rows[before][0], same[0]
        if changes := differences(_essence(one.config), _essence(other.config)):
            strategy = strategy_text(other.strategy)
            labels[number] = f"{label} ({'; '.join(changes[:2])})" if strategy in labels else strategy
        else:
            labels[number] = str(other.path)
            if len(rows[before]) == 1:
                labels[before] = str(one.path)
    return labels


def _label(same: Sequence[Run]) -> str:
    names = {run.name for run in same}
    return names.pop() if len(names) == 1 else strategy_text(same[0].strategy)


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in config.items() if key not in NO_MATTER}
    training = {key: value for key, value in (config.get("training") or {}).items() if key not in KEEPING}
    return found | {"training": training}


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(_essence(config), default=str)
