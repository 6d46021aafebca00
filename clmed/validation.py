"""The checks that look at the disk, all before any work starts: files, leaks of test questions, strategies.

Nothing is downloaded: a hub id is checked for its form only.
"""

import filecmp
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clmed import catalogue, combinations
from clmed.catalogue import StrategyInfo
from clmed.complaints import Loc, Places, Problem, describe, did_you_mean, dotted
from clmed.config import (
    BASE_ONLY,
    LOCAL_SUFFIXES,
    NOT_READING,
    PAST,
    BenchmarkConfig,
    EvaluateConfig,
    ExperimentConfig,
    data_folder,
    load_with_places,
    resolve,
)
from clmed.errors import UserError
from clmed.planning import costs
from clmed.results.start import find_start
from clmed.yamlfile import COMMAND_LINE

NOWHERE: Places = {}


def load(path: str | Path, overrides: Sequence[str] = (), given: str = COMMAND_LINE) -> ExperimentConfig:
    """The experiment in a file, checked in full; UserError lists all mistakes with file and line, one a line.

    given: what those in the overrides are said to stand in.
    """
    config, places = load_with_places(path, overrides, given)
    check(config, places)
    return config


def check(config: ExperimentConfig, places: Places = NOWHERE) -> None:
    """UserError if a file is missing, a source leaks a benchmark's questions, or a strategy cannot be what is asked."""
    found: list[Problem] = []
    try:
        for part in (_start, _strategies, _model, _data):
            found += part(config)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        found.append(((), f"cannot look at {error.filename}: {error.strerror}"))
    if found:
        raise UserError(describe(found, places))


def check_evaluation(config: EvaluateConfig) -> None:
    """UserError if a benchmark of `clmed evaluate` cannot be what is asked, or shows its own test as shots."""
    root = data_folder(config)
    found = [*_model(config), *_benchmarks(config, root), *_tasks(config), *_shown_tests(config)]
    if found:
        raise UserError(describe(found, {(): COMMAND_LINE}))


def _start(config: ExperimentConfig) -> Iterator[Problem]:
    try:
        find_start(config)
    except UserError as error:
        yield ("from",), f"from: {error}"


def _data(config: ExperimentConfig) -> Iterator[Problem]:
    try:
        root = data_folder(config)
    except UserError as error:
        yield ("data_root",), str(error)
        return
    if root.is_dir():
        yield from _sources(config, root)
        yield from _benchmarks(config, root)
        yield from _tasks(config)
        yield from _leaks(config)
        yield from _shown_tests(config)
        yield from _heldout_leaks(config)
    else:
        yield ("data_root",), f"data_root: no folder '{config.data_root}' (looked for from {Path.cwd()})"


def _missing(loc: Loc, path: str, local: Path | None, root: Path) -> Iterator[Problem]:
    if local is not None and not local.exists():
        siblings = [file.name for file in local.parent.iterdir()] if local.parent.is_dir() else []
        hint = did_you_mean(local.name, siblings)
        yield loc, f"{dotted(loc)}: no file or folder '{path}' in {root}{hint if hint.startswith(';') else ''}"


def _sources(config: ExperimentConfig, root: Path) -> Iterator[Problem]:
    for name, source in config.data.items():
        local = resolve(config, source.path)
        yield from _missing(("data", name, "path"), source.path, local, root)
        if local is not None and source.subset is not None:
            yield ("data", name, "subset"), f"data.{name}.subset is for hub data sets, but {local} is a local path"
        if local is not None and local.is_dir():
            yield ("data", name, "path"), f"data.{name}.path: {local} is a folder: name one file of it"
        elif local is not None and local.exists() and local.suffix not in LOCAL_SUFFIXES:
            unknown = f"data.{name}.path: {local}: unknown kind of file '{local.suffix}'"
            yield ("data", name, "path"), f"{unknown}; the kinds read are {', '.join(LOCAL_SUFFIXES)}"


def _measured(config: ExperimentConfig | EvaluateConfig) -> Iterator[tuple[Loc, BenchmarkConfig]]:
    for role in ("gain", "retention"):
        for index, benchmark in enumerate(getattr(config.evaluation, role)):
            yield ("evaluation", role, index), benchmark


def _exams(config: ExperimentConfig | EvaluateConfig) -> Iterator[tuple[Loc, BenchmarkConfig]]:
    return ((loc, benchmark) for loc, benchmark in _measured(config) if benchmark.is_exam)


def _texts(config: ExperimentConfig | EvaluateConfig) -> Iterator[tuple[Loc, BenchmarkConfig]]:
    """Perplexities of texts that are no source."""
    return ((loc, text) for loc, text in _measured(config) if text.perplexity is not None and text.path is not None)


def _benchmarks(config: ExperimentConfig | EvaluateConfig, root: Path) -> Iterator[Problem]:
    from clmed.evaluation.benchmarks import find

    for loc, text in _texts(config):
        assert text.path is not None
        yield from _missing((*loc, "path"), text.path, resolve(config, text.path), root)
    for loc, benchmark in _exams(config):
        try:
            exam = find(benchmark)
        except UserError as error:
            yield (*loc, "benchmark"), f"{dotted(loc)}.benchmark: {error}"
            continue
        if benchmark.format_check and (benchmark.scoring or exam.scoring) != "letter":
            reason = f"is for answers by letter, and {benchmark.label} is asked by {benchmark.scoring or exam.scoring}"
            yield (*loc, "format_check"), f"{dotted(loc)}.format_check {reason}"
        if benchmark.shots_from is not None:
            shots = resolve(config, benchmark.shots_from)
            yield from _missing((*loc, "shots_from"), benchmark.shots_from, shots, root)
        local = resolve(config, benchmark.path) if benchmark.path is not None else None
        if benchmark.path is not None:
            yield from _missing((*loc, "path"), benchmark.path, local, root)
        for key, reason in exam.layout.problems(benchmark, local):
            yield (*loc, key), f"{dotted(loc)}.{key}: {reason}"


def _tasks(config: ExperimentConfig | EvaluateConfig) -> Iterator[Problem]:
    """Of lm-evaluation-harness, which takes seconds to list its own: only where one is asked for."""
    for loc, benchmark in _measured(config):
        if benchmark.task is None:
            continue
        from clmed.evaluation.harness.tasks import find_task

        local = resolve(config, benchmark.path) if benchmark.path is not None else None
        if benchmark.path is not None and (local is None or not local.is_dir()):
            path = (*loc, "path")
            yield path, f"{dotted(path)}: a folder with task files of lm_eval is needed; '{benchmark.path}' is none"
            continue
        try:
            find_task(benchmark, local)
        except UserError as error:
            yield (*loc, "benchmark"), f"{dotted(loc)}.benchmark: {error}"


class Test(NamedTuple):
    """Where the questions of a benchmark are: files, or a split of the hub; subset: None for any."""

    benchmark: str
    hub: str | None
    subset: str | None
    split: str
    files: Sequence[Path]


def _tests(config: ExperimentConfig) -> Iterator[Test]:
    """Those of exams and of tasks of lm-evaluation-harness, but for what cannot be found, which is told elsewhere."""
    from clmed.evaluation.benchmarks import find

    for _, benchmark in _measured(config):
        local = resolve(config, benchmark.path) if benchmark.path is not None else None
        try:
            if benchmark.is_exam:
                layout = find(benchmark).layout
                hub = None if local is not None else benchmark.path or layout.hub
                yield Test(benchmark.label, hub, None, layout.split("test", benchmark), _below(local))
            elif benchmark.task is not None:
                from clmed.evaluation.harness.tasks import places

                for place in places(benchmark, local):
                    files = [file for file in place.files if file.is_file()]
                    yield Test(benchmark.label, place.hub, place.subset, place.split, files)
        except UserError:
            continue


def _leaks(config: ExperimentConfig) -> Iterator[Problem]:
    """Sources that are a benchmark's own questions: the same file, a copy of it, or the same hub split."""
    told = set()
    for test in _tests(config):
        for name, source in config.data.items():
            path = resolve(config, source.path)
            same_file = _same(_files(path), test.files)
            same_table = path is None and test.hub is not None and _same_id(test.hub, source.path)
            same_subset = None in (test.subset, source.subset) or test.subset == source.subset
            leaks = same_file or (same_table and same_subset and _has(source.split, test.split))
            if leaks and (name, test.benchmark) not in told:  # once, of a group of tasks
                told.add((name, test.benchmark))
                what = same_file or f"split {source.split} of {source.path}"
                yield (
                    ("data", name, "path"),
                    f"data.{name} leaks questions of the benchmark '{test.benchmark}', whose {what} it is: "
                    "take text that no benchmark asks about",
                )


def _shown_tests(config: ExperimentConfig | EvaluateConfig) -> Iterator[Problem]:
    for loc, benchmark in _exams(config):
        if benchmark.shots_from is not None and benchmark.path is not None:
            tests = _below(resolve(config, benchmark.path))
            if _same(_files(resolve(config, benchmark.shots_from)), tests):
                yield (*loc, "shots_from"), f"{dotted(loc)}.shots_from is the benchmark's own test file: take another"


def _heldout_leaks(config: ExperimentConfig) -> Iterator[Problem]:
    """Sources with the records of one whose held-out part is measured, split otherwise: they would train on it.

    And sources that are a text all of which is measured.
    """
    for _, text in _texts(config):
        assert text.path is not None
        local, split = resolve(config, text.path), text.split or "test"
        for name, source in config.data.items():
            path = resolve(config, source.path)
            same_split = local is None and path is None and _same_id(text.path, source.path)
            if _same(_files(path), _files(local)) or (same_split and _has(source.split, split)):
                yield (
                    ("data", name, "path"),
                    f"data.{name} leaks held-out text: all of {text.path} is measured as '{text.label}'",
                )
    every = [benchmark for _, benchmark in _measured(config) if benchmark.path is None]
    names = [benchmark.perplexity for benchmark in every if benchmark.perplexity is not None]
    for measured in dict.fromkeys([*names, *(config.watching.kl.data if config.watching.kl is not None else [])]):
        wanted = config.data[measured].model_dump(exclude=NOT_READING)
        for name, source in config.data.items():
            differ = [key for key, value in wanted.items() if getattr(source, key) != value]
            if differ and _same_records(config, name, measured):
                yield (
                    ("data", name),
                    f"data.{name} leaks held-out text of '{measured}', on which the model is measured: both read the "
                    f"same records, but they differ in {', '.join(differ)}, so that their parts overlap",
                )


def _same_records(config: ExperimentConfig, name: str, other: str) -> bool:
    """Whether two sources have records in common: the same file, a copy of it, or the same split on the hub."""
    one, two = config.data[name], config.data[other]
    if (path := resolve(config, one.path)) is not None:
        return _same(_files(path), _files(resolve(config, two.path))) is not None
    same_table = _same_id(one.path, two.path) and one.subset == two.subset
    return same_table and not _splits(one.split).isdisjoint(_splits(two.split))


def _same_id(one: str, other: str) -> bool:
    """The hub does not tell capital from small letters."""
    return one.lower() == other.lower()


def _splits(expression: str) -> set[str]:
    """The splits in an expression of `datasets`: "train[:50%]+test" -> {"train", "test"}."""
    return {part.partition("[")[0].strip() for part in expression.split("+")}


def _has(expression: str, wanted: str) -> bool:
    return any(wanted in split or split == "all" for split in _splits(expression))


def _files(local: Path | None) -> list[Path]:
    return [local] if local is not None and local.is_file() else []


def _below(local: Path | None) -> list[Path]:
    """The file itself, or all files of a folder."""
    if local is not None and local.is_dir():
        return sorted(file for file in local.rglob("*") if file.is_file())
    return _files(local)


def _same(files: Sequence[Path], tests: Sequence[Path]) -> Path | None:
    """The first of `tests` that is one of `files` or has the same content."""
    for file in files:
        for test in tests:
            # filecmp reads the contents only when the sizes are equal.
            if file.samefile(test) or (file.stat().st_size and filecmp.cmp(file, test, shallow=False)):
                return test
    return None


def _model(config: ExperimentConfig | EvaluateConfig) -> Iterator[Problem]:
    path = config.model.path
    if path is None:
        return
    local = Path(os.path.expanduser(path))
    if not local.exists() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        yield ("model", "path"), f"model.path: no folder '{path}' (looked for from {Path.cwd()})"
    if config.model.gguf_file is not None and local.is_dir() and not (local / config.model.gguf_file).is_file():
        yield ("model", "gguf_file"), f"model.gguf_file: no file '{config.model.gguf_file}' in {local}"


def _strategies(config: ExperimentConfig) -> Iterator[Problem]:
    found = []
    for name, params in config.strategy.items():
        loc = ("strategy", name)
        try:
            info = catalogue.find(name)
        except UserError as error:
            yield loc, str(error)
            continue
        if not info.is_strategy:
            base = "subclass `Strategy` of clmed.strategy"
            yield (
                loc,
                f"strategy '{name}': {info.class_name} in {info.path} is no strategy, so nothing calls it: {base}",
            )
            continue
        wrong = catalogue.problems(info, params)
        yield from (((*loc, key), message) for key, message in wrong)
        if not wrong and (refused := catalogue.refusal(info, params)) is not None:
            yield (*loc, refused[0]), refused[1]
        elif not wrong and (unfit := costs.refused(info, params, config.model)) is not None:
            yield loc, unfit
        mistyped = {key for key, _ in wrong}
        for key, value in params.items():
            if (key == "from" or key.endswith("_from") or key in info.declared.reads) and key not in mistyped:
                yield from _unusable_sources(config, info, key, value)
        found.append(info)
    yield from combinations.problems(config, found)


def _unusable_sources(config: ExperimentConfig, info: StrategyInfo, key: str, value: object) -> Iterator[Problem]:
    """Names in a strategy's list that are no source or for the base only; "past" needs a strategy with a `memory`."""
    known = [*config.data, PAST] if "memory" in info.parameters or not info.complete else [*config.data]
    for index, source in enumerate(value if isinstance(value, list) else [value]):
        at, named = ("strategy", info.name, key, index), f"strategy '{info.name}': {key}"
        if not isinstance(source, str):
            continue
        if source not in known:
            asks_for_past = source == PAST and PAST in info.parameters
            hint = "; write `past: true` instead" if asks_for_past else did_you_mean(source, known)
            yield at, f"{named}: no source '{source}' in data{hint}"
        elif source in config.data and config.data[source].base_only:
            yield at, f"{named}: {BASE_ONLY.format(source)}"
