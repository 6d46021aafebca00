"""Experiences known by everything that made them, so that runs that begin alike share the work.

The state after i experiences has a key: a fingerprint of the weights at the start, what is measured, clmed's own code,
the versions of the libraries, the ranks, threads and device, and (but for the first, the measured base) the experiences
until there, the contents of the data, the strategies, the seed and the settings of training. Equal keys mean equal
results, bit for bit.

Nothing is stored twice. A run notes its keys in its status; `experiences/<key>` in the cache is no more than the path
of the run to look at. The weights, scores and answers are those in that run's directory, whose checkpoints of
experiences' ends stay. Another run links the checkpoint into its own directory (so the disk holds it once, and it
stays when the first run is deleted), copies the scores, marked with where they were measured, and goes on from there
as a stopped run does. To free the space, delete runs; to forget the index, delete the folder in the cache;
`training.share_experiences: false` neither gives nor takes.
"""

import hashlib
import importlib.util
import os
import shutil
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import clmed
from clmed.config import ExperimentConfig, fingerprint
from clmed.data.cache import cache_dir
from clmed.data.cleaning import LeftOut
from clmed.data.rows import tokenizer_fingerprint
from clmed.results import manifest
from clmed.results.rundir import RunDirectory, is_run, write_whole
from clmed.results.start import Start
from clmed.strategy import Strategy
from clmed.stream import BenchmarkExperience, Experience
from clmed.training.model import sources_fingerprint
from clmed.training.sharding import World
from clmed.training.state import weights_fingerprint

# How a run is kept and started, which does not change what comes out; `device` and `threads` count as they are.
NO_MATTER = {
    "save_every",
    "checkpoints_kept",
    "keep_at",
    "keep_measured",
    "asynchronous_saves",
    "share_experiences",
    "device",
    "threads",
}


def lineage(
    config: ExperimentConfig,
    *,
    world: World,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    strategies: Sequence[Strategy],
    stream: Sequence[Experience],
    benchmarks: Sequence[BenchmarkExperience],
    versions: Mapping[str, str],
    start: Start | None,
    left_out: LeftOut,
) -> list[str]:
    """The keys of the states after 0, 1, … experiences; none where what makes them cannot be told in full.

    That is so for strategies that are not clmed's own, whose files may import anything, and for models with code of
    their own. model: with the weights of the start, which is the base where there is none. All ranks call this.
    """
    classes = {base for strategy in strategies for base in type(strategy).mro()} - set(Strategy.mro())
    own = all(base.__module__.startswith("clmed.strategies.") for base in classes)
    if not config.training.share_experiences or config.model.trust_remote_code or not own:
        return []
    whole = any(type(strategy).stream is not Strategy.stream for strategy in strategies)

    def contents(names: Sequence[str]) -> list[Any]:
        found = sources_fingerprint(config, list(names))
        return [[name, content, sorted(left_out.get(name, ()))] for name, content in zip(names, found, strict=True)]

    measured = [
        [
            weights_fingerprint(model, world),
            tokenizer_fingerprint(tokenizer),
            config.training.precision,
            config.training.sharding,
        ],
        [config.watching.kl, contents(config.watching.kl.data if config.watching.kl is not None else [])],
        [config.evaluation.batch_tokens, [[each.name, each.role, each.digest] for each in benchmarks]],
        [_code(), dict(versions), world.ranks, torch.get_num_threads(), _device(world)],
    ]
    before = [
        [] if start is None else [start.point.number, start.counters, [contents(names) for names in start.past]],
        [config.seed, list(config.strategy.items()), config.stream if whole else []],
        config.evaluation.floors if config.evaluation.on_floor == "stop" else {},  # one crossed ends a run
        config.training.model_dump(mode="json", exclude=NO_MATTER),
    ]
    keys = [fingerprint(measured)]
    for index, experience in enumerate(stream):
        following = stream[index + 1 :]
        # A strategy may do without what only a next experience needs; a carried optimizer is part of the state.
        carried = bool(following) and following[0].config.optimizer.state == "carry"
        ahead = [bool(following) or not strategies, carried]
        names = [name for name in config.data if name in experience.config.data or name in _words(config.strategy)]
        made_from = [before, experience.config, contents(names), ahead]
        keys.append(fingerprint([keys[-1], made_from]))
    return keys


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What another run has done already: so many experiences, measured at so many points.

    checkpoint: of their end; inside: those before it that this run is to keep, too, at ends and `keep_at`.
    """

    run: RunDirectory
    experiences: int
    points: int
    checkpoint: Path | None
    inside: tuple[Path, ...] = ()


def find_shared(
    keys: Sequence[str],
    own: RunDirectory,
    benchmarks: Collection[str],
    *,
    least: int = 0,
    keep_at: Collection[int] = (),
) -> Shared | None:
    """The longest beginning, of `least` experiences or more, that another run has done and kept whole; or None.

    keep_at: domain tokens whose checkpoints belong to it.
    """
    for index in reversed(range(least, len(keys))):
        try:
            path = Path((_index() / keys[index]).read_text())
        except OSError:
            continue
        if path.resolve() != own.path.resolve() and is_run(path):
            found = _done(RunDirectory(path), keys[index], index, benchmarks, keep_at)
            if found is not None:
                return found
    return None


def _done(
    run: RunDirectory, key: str, experiences: int, benchmarks: Collection[str], keep_at: Collection[int] = ()
) -> Shared | None:
    if run.status().get("lineage", [])[experiences : experiences + 1] != [key]:
        return None
    points, checkpoint = 1, None
    inside: tuple[Path, ...] | None = ()
    if experiences:
        found = _end_of(run, experiences)
        if found is None:
            return None
        points, checkpoint = found
        inside = _kept_inside(run, checkpoint, keep_at)
    measured = {(row["point"], row["benchmark"]) for row in run.results()}
    if inside is None or any((point, name) not in measured for point in range(points) for name in benchmarks):
        return None
    ends = [end for earlier in range(1, experiences) if (end := _end_of(run, earlier)) is not None]
    inside = tuple(dict.fromkeys([*(path for _, path in ends), *inside]))
    return Shared(run=run, experiences=experiences, points=points, checkpoint=checkpoint, inside=inside)


def _kept_inside(run: RunDirectory, end: Path, keep_at: Collection[int]) -> tuple[Path, ...] | None:
    """The checkpoints of the steps before that of `end` that reach tokens of `keep_at`; None if one was not kept."""
    steps = manifest.read(end).values["clock"]["train_iterations"]
    trained = [row["tokens"] for row in run.training()[:steps]]
    found = []
    for step in sorted({bisect_left(trained, tokens) + 1 for tokens in keep_at}):
        if step < steps:
            kept = [path for path in run.checkpoints.glob(f"{step:08d}-*") if (path / manifest.KEPT).exists()]
            whole = next((path for path in kept if _is_whole(path)), None)
            if whole is None:
                return None
            found.append(whole)
    return tuple(found)


def _is_whole(checkpoint: Path) -> bool:
    try:
        manifest.read_whole(checkpoint)
    except ValueError:
        return False
    return True


def _end_of(run: RunDirectory, experiences: int) -> tuple[int, Path] | None:
    """(points, checkpoint) after so many experiences, if it was kept and is undamaged."""
    for folder in manifest.checkpoints(run.checkpoints):
        if folder.name.endswith(f"-{experiences}") and (folder / manifest.KEPT).exists():
            try:
                place = manifest.read_whole(folder).values["place"]
            except ValueError:
                continue
            if place["index"] == experiences and not place["first_step"]:
                return place["point"], folder
    return None


def take_up(shared: Shared, run: RunDirectory, benchmarks: Collection[str]) -> None:
    """Put into a fresh run what another has done, as if it had done it itself and stopped there."""
    run.copy_points(shared.run, shared.points, benchmarks)
    if shared.checkpoint is None:
        return
    steps = manifest.read(shared.checkpoint).values["clock"]["train_iterations"]
    run.add_trainings(shared.run.training()[:steps])
    for checkpoint in (*shared.inside, shared.checkpoint):
        partial = run.checkpoints / f".{checkpoint.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(checkpoint, partial, copy_function=_link)
        partial.rename(run.checkpoints / checkpoint.name)


def register(keys: Sequence[str], run: RunDirectory, *, fresh: bool) -> None:
    """Let others find this run by its keys; whether it has got so far is seen when it is looked for.

    A run that goes on after the code or the data have changed is not what either keys say.
    """
    if not fresh and run.status().get("lineage") != list(keys):
        keys = []
    run.set_lineage(keys)
    for index, key in enumerate(keys):
        known = _index() / key
        try:
            other = Path(known.read_text())
            if is_run(other) and _done(RunDirectory(other), key, index, ()) is not None:
                continue  # it has done what this run is still to do
        except OSError:
            pass
        write_whole(known, str(run.path.resolve()).encode())


def _index() -> Path:
    return cache_dir() / "experiences"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


def _words(value: Any) -> set[str]:
    """Every text in the parameters of the strategies: some are names of sources."""
    if isinstance(value, Mapping):
        return _words(list(value.values()))
    if isinstance(value, list):
        return {word for item in value for word in _words(item)}
    return {value} if isinstance(value, str) else set()


def _code() -> str:
    """Of all files of clmed and its strategies."""
    folders = [str(Path(clmed.__file__).parent)]
    if (spec := importlib.util.find_spec("clmed.strategies")) is not None:
        folders += spec.submodule_search_locations or []
    hashed = hashlib.sha256()
    for file in sorted(file for folder in folders for file in Path(folder).rglob("*.py")):
        hashed.update(file.name.encode() + file.read_bytes())
    return hashed.hexdigest()


def _device(world: World) -> str:
    if world.device.type == "cuda":
        return torch.cuda.get_device_name(world.device)
    return torch.backends.cpu.get_cpu_capability()
