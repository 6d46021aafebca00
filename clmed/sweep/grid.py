"""A grid of experiments from `key=value,value` arguments.

What stands behind the equals sign is the inside of a YAML list: commas outside of brackets and quotes separate values.
`seed=0,1,2` are three values, `stream.0.data=[a, b]` is one, `stream.0.data=[a],[b]` are two. A key with one value is
the same in all runs; the others make the grid, of which the last changes fastest.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clmed import validation, yamlfile
from clmed.config import ExperimentConfig, fingerprint
from clmed.errors import UserError

PLAIN = re.compile(r"[A-Za-z0-9._+-]+")
LONGEST = 40  # characters of a value in the name of a folder


@dataclass(frozen=True, kw_only=True)
class GridPoint:
    """One run: the values that tell it from the others, as they were written, and all that it is made from."""

    name: str
    values: dict[str, str]
    config: ExperimentConfig


@dataclass(frozen=True, kw_only=True)
class Grid:
    """file and fixed: what all runs have in common; axes: the values of each key that changes."""

    file: Path
    fixed: tuple[str, ...]
    axes: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, file: Path, arguments: Sequence[str]) -> "Grid":
        """UserError for an argument that is no `key=values`, or a key that is given twice."""
        fixed: list[str] = []
        axes: dict[str, tuple[str, ...]] = {}
        for argument in arguments:
            key, sign, text = argument.partition("=")
            key = key.strip()
            if not sign or not key:
                raise UserError(
                    f"command line: '{argument}' is not of the form key=value,value, such as "
                    "strategy.replay.ratio=0,0.05 or seed=0,1,2"
                )
            if key in axes or any(other.startswith(f"{key}=") for other in fixed):
                raise UserError(f"command line: {key} is given twice; write all of its values in one: {key}=a,b")
            found = split(argument, text)
            if len(found) > 1:
                axes[key] = found
            else:
                fixed.append(f"{key}={found[0]}")
        if not axes:
            raise UserError(
                "command line: nothing changes from run to run; give a key several values, such as seed=0,1,2 "
                "(`clmed run` does a single run)."
            )
        return cls(file=file, fixed=tuple(fixed), axes=axes)

    @property
    def name(self) -> str:
        """What the folder of the sweep is called after: the experiment's name, or the file's where that changes."""
        named = self.identity["experiment"].get("name")
        return str(named) if isinstance(named, str) and "name" not in self.axes else self.file.stem

    @property
    def identity(self) -> dict[str, Any]:
        """What its folder is known by. Without the swept values the file need not be valid, so it is as written."""
        tree = yamlfile.read(self.file, self.fixed)
        return {"file": str(self.file), "keys": list(self.axes), "experiment": tree.data}

    def points(self) -> list[GridPoint]:
        """Every run, checked as `clmed validate` does. Raises UserError with the mistakes of all, each told once."""
        found, mistakes = [], dict[str, None]()
        for values in itertools.product(*self.axes.values()):
            chosen = dict(zip(self.axes, values, strict=True))
            try:
                config = validation.load(self.file, [*self.fixed, *(f"{key}={text}" for key, text in chosen.items())])
            except UserError as error:
                mistakes |= dict.fromkeys(str(error).split("\n"))
                continue
            named = config.model_copy(update={"name": self._run_name(config.name, chosen)})
            found.append(GridPoint(name=folder_name(chosen), values=chosen, config=named))
        if mistakes:
            raise UserError("\n".join(mistakes))
        _refuse_equal(found)
        return found

    def _run_name(self, name: str, chosen: dict[str, str]) -> str:
        """Runs that differ in the seed alone have one name: figures and tables take them together."""
        parts = [name, *(brief(text) for key, text in chosen.items() if key not in ("seed", "name"))]
        return re.sub(r"[^A-Za-z0-9._-]", "-", "-".join(parts))


def split(argument: str, text: str) -> tuple[str, ...]:
    """The values in `text`, each as it was written."""
    listed = f"[{text}]"
    try:
        node = yaml.compose(listed, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(listed):
        raise UserError(
            f"command line: '{argument}': what follows = is no list of YAML values; commas separate values, none may "
            'be empty, and text with commas, colons or brackets needs quotes ("a, b")'
        )
    found = tuple(listed[item.start_mark.index : item.end_mark.index].strip() for item in node.value)
    if not all(found) or text.rstrip().endswith(",") or not found:
        raise UserError(f"command line: '{argument}' has an empty value; write null where nothing is meant")
    return found


def folder_name(chosen: dict[str, str]) -> str:
    """`ratio=0.05,seed=1`: of each key as much of its end as tells it from the others."""
    return ",".join(f"{key}={brief(text)}" for key, text in zip(short_keys(list(chosen)), chosen.values(), strict=True))


def short_keys(keys: Sequence[str]) -> list[str]:
    """("stream.0.tokens", "stream.1.tokens", "seed") -> ["0.tokens", "1.tokens", "seed"]."""
    parts = [key.split(".") for key in keys]

    def ends(depth: int, own: list[str]) -> int:
        return sum(other[-depth:] == own[-depth:] for other in parts)

    return [".".join(own[-next((d for d in range(1, len(own)) if ends(d, own) == 1), len(own)) :]) for own in parts]


def brief(text: str) -> str:
    """A value for the name of a folder; one that cannot stand there as it is gets a checksum of itself."""
    if PLAIN.fullmatch(text) and len(text) <= LONGEST:
        return text
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-")[:LONGEST]
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:4]}".strip("-")


def _refuse_equal(points: Sequence[GridPoint]) -> None:
    """Two ways to write one experiment: 400k and 400000."""
    first: dict[str, GridPoint] = {}
    for point in points:
        key = fingerprint(point.config.model_copy(update={"name": "same"}))
        if (other := first.setdefault(key, point)) is not point:
            differ = [f"{key}={other.values[key]} and ={text}" for key, text in point.values.items()
                      if other.values[key] != text]  # fmt: skip
            same = "; ".join(differ) or "a value that is given twice"
            raise UserError(f"command line: two runs of the grid are one and the same experiment: {same}")
