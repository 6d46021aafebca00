"""Where a stream starts when something is known of its first model: a point of another run, or a measured base."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed.config import BenchmarkConfig, ExperimentConfig, resolve
from clmed.config.stream import BASE
from clmed.errors import UserError
from clmed.results import manifest
from clmed.results.differences import differences
from clmed.results.points import Point, find_point, weights_of
from clmed.results.rundir import RunDirectory, is_run


@dataclass(frozen=True, kw_only=True)
class Start:
    """The measurement point of another run at which a stream starts.

    weights: the folder that holds them, None for the base model; known: the benchmarks whose scores at this point, and
    before, are taken from that run; past: of each experience that it was trained on the sources that this run has, too,
    a source where it came first; experiences: how many these were, the point's own included; counters: the trainer's.
    """

    run: RunDirectory
    point: Point
    weights: Path | None
    known: frozenset[str]
    past: tuple[tuple[str, ...], ...]
    experiences: int
    counters: dict[str, Any]

    @classmethod
    def at_base(cls, run: RunDirectory, benchmarks: Collection[str]) -> "Start":
        """The base model, measured by another run."""
        point = Point(number=0, experience=BASE, tokens=0, inside=0, final=True)
        return cls(run=run, point=point, weights=None, known=frozenset(benchmarks), past=(), experiences=0, counters={})


COUNTERS = ("tokens", "all_tokens", "bytes", "flops", "train_seconds")


def find_start(config: ExperimentConfig) -> Start | None:
    """What `from: RUN@point` means; None without it.

    Raises UserError for a run or a point that is not there, whose weights were not kept, or of another model.
    """
    if config.from_ is None:
        return None
    path, wanted = named(config.from_)
    run = RunDirectory.open(path)
    theirs = run.config()
    if changes := differences(theirs["model"], config.model_dump(mode="json")["model"], "model"):
        raise UserError(f"{path} trained another model: {'; '.join(changes)}. A stream goes on with the model it has.")
    point = find_point(run, wanted)
    weights = weights_of(run, point)
    other = ExperimentConfig.model_validate(theirs)
    before = list(dict.fromkeys(row["experience"] for row in run.results() if row["point"] <= point.number))
    rows = [row for row in run.results() if row["point"] == point.number]
    return Start(
        run=run,
        point=point,
        weights=weights,
        known=frozenset(_alike(config, other)),
        past=_past(config, _trained(other, before)),
        experiences=len(set(before) - {BASE}),
        counters={name: rows[-1][name] for name in COUNTERS},
    )


def named(start: str) -> tuple[Path, str]:
    """The run and the point of `RUN@point`; both may hold an @ themselves (me@home/run, exam@1 epoch)."""
    cuts = [at for at, letter in enumerate(start) if letter == "@"]
    cut = next((at for at in reversed(cuts) if is_run(Path(start[:at]))), cuts[0])
    return Path(start[:cut]), start[cut + 1 :]


def _trained(config: ExperimentConfig, names: Collection[str]) -> Iterator[tuple[ExperimentConfig, Sequence[str]]]:
    """The sources of each experience of these names, of a run and of those before it that it started from."""
    parent = RunDirectory(named(config.from_)[0]) if config.from_ is not None else None
    if parent is not None and is_run(parent.path):  # it may have been removed since
        yield from _trained(ExperimentConfig.model_validate(parent.config()), names)
    for experience in config.stream:
        if experience.name in names:
            yield config, experience.data


def _past(
    config: ExperimentConfig, trained: Iterable[tuple[ExperimentConfig, Sequence[str]]]
) -> tuple[tuple[str, ...], ...]:
    groups: list[tuple[str, ...]] = []
    for whose, names in trained:
        known = {name for group in groups for name in group}
        groups.append(tuple(name for name in names if name not in known and _same_source(config, whose, name)))
    return tuple(groups)


def _alike(config: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """The benchmarks that both measure in the same way."""

    def of(which: ExperimentConfig) -> dict[str, Any]:
        return {
            benchmark.label: (role, _settings(which, benchmark))
            for role in ("gain", "retention")
            for benchmark in getattr(which.evaluation, role)
        }

    theirs = of(other)
    return [label for label, settings in of(config).items() if theirs.get(label) == settings]


def _settings(config: ExperimentConfig, benchmark: BenchmarkConfig) -> Any:
    settings = benchmark.model_dump(mode="json", exclude={"path", "shots_from"})
    places = [
        None if path is None else resolve(config, path) or path for path in (benchmark.path, benchmark.shots_from)
    ]
    source = None if benchmark.perplexity is None else _source(config, benchmark.perplexity)
    return settings, places, source


def _source(config: ExperimentConfig, name: str) -> Any:
    source = config.data[name]
    return source.model_dump(exclude={"path"}), resolve(config, source.path) or source.path


def _same_source(config: ExperimentConfig, other: ExperimentConfig, name: str) -> bool:
    return name in config.data and _source(config, name) == _source(other, name)


def keep(weights: Path) -> None:
    """Mark a checkpoint that others start from, so that its run does not remove it."""
    if (weights / manifest.MANIFEST).exists():
        with suppress(OSError):  # a run of somebody else's can be read and not marked
            (weights / manifest.KEPT).touch()
