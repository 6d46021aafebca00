"""The command-line options of `clmed evaluate`: several benchmarks in one command, each with settings of its own.

An option belongs to the benchmark that was named last; before the first one, to every benchmark.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from clmed.complaints import describe, problems
from clmed.config import EvaluateConfig
from clmed.errors import UserError
from clmed.results.rundir import RunDirectory, is_run

LISTS = ("only", "without")
"""What may be given several times for one benchmark."""


def evaluation(
    model: str, order: Sequence[str], values: Mapping[str, Sequence[Any]], batch_tokens: str, **settings: Any
) -> EvaluateConfig:
    """What to measure; `values`: every option of benchmarks with all that was given for it.

    Raises UserError for a model that is not there and for settings that no benchmark has.
    """
    benchmarks = group(order, values)
    if not benchmarks:
        raise UserError("command line: name something to measure with --benchmark or --perplexity.")
    config = {"evaluation": {"retention": benchmarks, "batch_tokens": batch_tokens}, **named_model(model), **settings}
    try:
        return EvaluateConfig.model_validate(config)
    except ValidationError as error:
        raise UserError(describe(problems(error, EvaluateConfig), {(): "command line"})) from None


def group(order: Sequence[str], values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Each benchmark with its settings."""
    left = {name: iter(given) for name, given in values.items()}
    for_all: dict[str, Any] = {}
    groups: list[dict[str, Any]] = []
    for name in order:
        if name not in left:
            continue
        value = next(left[name])
        if name == "perplexity":
            groups.append({"perplexity": re.sub(r"\.\w+$", "", Path(value).name), "path": value})
        elif name == "benchmark":
            groups.append({**for_all, "benchmark": value})
        else:
            taken = groups[-1] if groups else for_all
            if name in LISTS:
                taken[name] = [*taken.get(name, ()), value]
                continue
            if name in taken and name not in for_all:
                raise UserError(f"command line: --{name.replace('_', '-')} is given twice for one benchmark.")
            taken[name] = _mapping(value) if name == "columns" else value
    return groups


def _mapping(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"command line: --columns {text!r} is no YAML: {' '.join(str(error).split())}") from error


def named_model(text: str) -> dict[str, Any]:
    """`model` and `name` for a hub id, a folder, a GGUF file, or the directory of a run."""
    path = Path(text).expanduser()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name).strip("-._") or "model"
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"{text}: there is no such file.")
        return {"name": name.removesuffix(".gguf"), "model": {"path": str(path.parent), "gguf_file": path.name}}
    if is_run(path):
        run = RunDirectory(path)
        if not run.model.is_dir():
            raise UserError(
                f"{text}: this run has no model yet ({run.status()['state']}); a complete one has {run.model}."
            )
        return {"name": name, "model": {"path": str(run.model)}}
    return {"name": name, "model": {"path": str(path) if path.is_dir() else text}}
