"""What the runs were: cost, mixture as trained, differences of configuration, environment."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from clmed.results.report.tables import NONE, Cell, Column, Table, number, text, without_empty
from clmed.results.rundir import Row
from clmed.results.runs import Run
from clmed.results.table import tokens_text

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times as fast, where PyYAML was built with libyaml
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def cost(named: Mapping[str, Run]) -> Table:
    """What each run has spent by its last measurement."""
    columns = [
        Column(heading="run", numeric=False),
        Column(heading="domain tokens"),
        Column(heading="all tokens", hint="with replay and everything else in the batches"),
        Column(heading="FLOPs", hint="of the model: training, Fisher, teachers, generation"),
        Column(heading="training"),
        Column(heading="measuring"),
        Column(heading="tokens/s", hint="the median step"),
        Column(heading="peak memory"),
    ]
    rows = []
    for label, run in named.items():
        last, speeds = run.whole[-1], [row["tokens_per_second"] for row in run.training if "tokens_per_second" in row]
        once = {(row["point"], row["benchmark"]): row.get("seconds", 0) for row in run.whole if "taken_from" not in row}
        memory = max((row.get("peak_memory", 0) for row in run.training), default=0)
        rows.append(
            [
                text(label),
                _tokens(last.get("tokens")),
                _tokens(last.get("all_tokens")),
                number(last.get("flops"), f"{last.get('flops', 0):.3g}"),
                _seconds(last.get("train_seconds")),
                _seconds(sum(once.values())),
                number(speed := statistics.median(speeds), tokens_text(speed)) if speeds else number(None, ""),
                number(memory, f"{memory / 2**30:.1f} GiB") if memory else number(None, ""),
            ]
        )
    note = "Measuring counts what this run measured itself, not what it took over from a run that began alike."
    caption = "What each run has cost so far"
    return without_empty(Table(name="cost-table", caption=caption, columns=columns, rows=rows, note=note))


def _tokens(value: float | None) -> Cell:
    return number(value, tokens_text(value or 0))


def _seconds(value: float | None) -> Cell:
    return number(value, duration(value or 0))


def duration(seconds: float) -> str:
    """1.5 h, 12 min, 44.7 s."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= 2 * size), (1, "s"))
    return f"{seconds / size:.3g} {unit}"


def mixture(named: Mapping[str, Run]) -> Table | None:
    """Which sources made up each experience: their share of the tokens with loss, and of the loss itself."""
    rows = []
    for label, run in named.items():
        for experience, steps in _experiences(run.training):
            tokens = {name: sum(step.get(f"supervised/{name}", 0) for step in steps) for name in _sources(steps)}
            total = sum(tokens.values()) or 1
            for name, count in tokens.items():
                shares = [step.get(f"share/{name}", 0.0) for step in steps]
                share, of_loss = count / total, statistics.fmean(shares)
                cells = [text(label), text(experience), text(name), number(count, tokens_text(count))]
                cells.append(Cell(text=f"{share:.1%}", sort=share, bar=share))
                rows.append([*cells, Cell(text=f"{of_loss:.1%}", sort=of_loss, bar=of_loss)])
    if not rows:
        return None
    columns = [
        *(Column(heading=heading, numeric=False) for heading in ("run", "experience", "source")),
        Column(heading="tokens", minor=True, hint="those with a loss, in all steps of the experience"),
        Column(heading="of tokens"),
        Column(heading="of loss", hint="the mean over steps"),
    ]
    caption = "Mixture as trained: each source's share of the tokens with loss, and of the loss"
    return Table(name="mixture-table", caption=caption, columns=columns, rows=rows, filterable=len(rows) > 12)


def _experiences(training: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    for experience, steps in itertools.groupby(training, key=lambda row: row["experience"]):
        yield experience, list(steps)


def _sources(steps: Sequence[Row]) -> list[str]:
    keys = dict.fromkeys(key for step in steps for key in step if key.startswith("supervised/"))
    return [key.removeprefix("supervised/") for key in keys]


def configurations(named: Mapping[str, Run]) -> Table | None:
    """The settings in which the runs differ; None for one run, or where they are alike."""
    leaves = {label: _leaves(run.config) for label, run in named.items()}
    return _side_by_side("configuration-table", "Settings in which the runs differ", leaves, only_different=True)


def environments(named: Mapping[str, Run]) -> Table | None:
    """The command, which is each run's own, is shown of one run only: of several they would all differ."""
    leaves = {label: _leaves(run.environment) for label, run in named.items()}
    if len(leaves) > 1:
        leaves = {label: {key: text for key, text in of.items() if key != "command"} for label, of in leaves.items()}
    return _side_by_side("environment-table", "What the results may depend on besides", leaves, only_different=False)


def configuration_text(run: Run) -> str:
    """The whole configuration as YAML."""
    return yaml.dump(run.config, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=100)


def _side_by_side(
    name: str, caption: str, leaves: Mapping[str, Mapping[str, str]], only_different: bool
) -> Table | None:
    """A row for each key; a column for each run, or one for all where every run has the same."""
    keys = dict.fromkeys(key for found in leaves.values() for key in found)
    values = {key: [found.get(key, NONE) for found in leaves.values()] for key in keys}
    different = {key: found for key, found in values.items() if len(set(found)) > 1}
    if not (different if only_different else values):
        return None
    headings = list(leaves) if different else [next(iter(leaves)) if len(leaves) == 1 else "all runs"]
    shown = different if only_different else values
    rows = [[text(key), *(text(value) for value in found[: len(headings)])] for key, found in shown.items()]
    columns = [Column(heading=heading, numeric=False) for heading in ("setting", *headings)]
    return Table(name=name, caption=caption, columns=columns, rows=rows, filterable=len(rows) > 12)


def _leaves(value: Any, place: str = "") -> dict[str, str]:
    """`stream.exam-finetuning.tokens` -> its value, as an override on the command line would name it."""
    if isinstance(value, Mapping) and value:
        children = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, list) and any(isinstance(child, Mapping) for child in value):
        children = [(_item(number, child), child) for number, child in enumerate(value)]
    else:
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        return {place: NONE if shown is None or shown in ("", {}) else str(shown)}
    return {
        key: leaf
        for name, child in children
        for key, leaf in _leaves(child, f"{place}.{name}" if place else name).items()
    }


def _item(number: int, child: Any) -> str:
    return str(child.get("name") or number) if isinstance(child, Mapping) else str(number)
