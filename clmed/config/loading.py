"""From a YAML file to a configuration and back, and the folders that its paths mean."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from clmed import yamlfile
from clmed.complaints import Places, describe, problems
from clmed.config.evaluation import EvaluateConfig
from clmed.config.experiment import ExperimentConfig
from clmed.errors import UserError

LOCAL_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment in a YAML file with `key=value` overrides; UserError lists all mistakes, one a line."""
    return load_with_places(path, overrides)[0]


def load_with_places(
    path: str | Path, overrides: Sequence[str] = (), given: str = yamlfile.COMMAND_LINE
) -> tuple[ExperimentConfig, Places]:
    """As `load`, and where every key was written: `given` is where the overrides were."""
    tree = yamlfile.read(Path(path), overrides, given)
    try:
        return ExperimentConfig.model_validate(tree.data), tree.places
    except ValidationError as error:
        raise UserError(describe(problems(error, ExperimentConfig), tree.places)) from None


def dump(config: ExperimentConfig | EvaluateConfig) -> str:
    """YAML with every default written out, which loads again equal."""
    return yamlfile.dump(config.model_dump(mode="json"))


def fingerprint(thing: Any) -> str:
    """16 hex digits of the SHA-256 of a model or plain data. The order of keys does not count, except of strategies."""

    def plain(model: Any) -> Any:
        if not isinstance(model, BaseModel):
            raise TypeError(f"no fingerprint of a {type(model).__name__}")
        data = model.model_dump(mode="json")
        return {**data, "strategy": list(data["strategy"].items())} if isinstance(model, ExperimentConfig) else data

    text = json.dumps(thing, default=plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def data_folder(config: ExperimentConfig | EvaluateConfig) -> Path:
    """`data_root` as a folder; that of the built-in world is made when it is not there yet."""
    from clmed.data import miniworld

    if miniworld.is_miniworld(config.data_root):
        return miniworld.folder(config.data_root)
    return Path(os.path.expanduser(config.data_root))


def resolve(config: ExperimentConfig | EvaluateConfig, path: str) -> Path | None:
    """The local file or folder (perhaps missing) that a data path means; None is a hub id, `owner/name`."""
    local = data_folder(config) / os.path.expanduser(path)
    looks_local = path.startswith((".", "/", "~")) or path.endswith(LOCAL_SUFFIXES) or local.exists()
    return local if looks_local or not _HUB_ID.fullmatch(path) else None
