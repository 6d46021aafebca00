"""The manifest of a checkpoint folder: what was saved there, and how each file must look.

    <steps>-<experience>/  manifest.json  .metadata  __<rank>_<n>.distcp  [kept]

`manifest.json` holds the values that are no tensors, the size and SHA-256 of every other file, and its own SHA-256. A
folder with the empty file `kept` in it is not removed when newer checkpoints come.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
KEPT = "kept"

Digests = dict[str, list[Any]]  # name -> [size, SHA-256]


@dataclass(frozen=True)
class Manifest:
    """values: as they were saved (`place`, `clock`, `strategies`); files: of the checkpoint, with their digests."""

    files: Digests
    values: dict[str, Any]


def write(folder: Path, files: Digests, values: str) -> None:
    """values: a JSON object as text."""
    body = {"files": files, "values": json.loads(values)}
    (folder / MANIFEST).write_text(json.dumps({**body, "sha256": _digest_of(body)}))


def read(folder: Path) -> Manifest:
    """Raises ValueError if it is not as it was written."""
    try:
        body = json.loads((folder / MANIFEST).read_bytes())
        if body.pop("sha256") != _digest_of(body):
            raise ValueError("it has changed")
        return Manifest(body["files"], body["values"])
    except OSError as error:
        raise ValueError(f"{MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{MANIFEST}: {error}") from error


def read_whole(folder: Path) -> Manifest:
    """As `read`; ValueError also if another file of the checkpoint is damaged."""
    found = read(folder)
    if problem := damage(folder, found.files):
        raise ValueError(problem)
    return found


def checkpoints(folder: Path) -> list[Path]:
    """Those in a folder, newest first; their names begin with a number that rises."""
    return sorted(folder.glob("[0-9]*-*"), key=lambda path: path.name, reverse=True)


def damage(folder: Path, files: Mapping[str, list[Any]]) -> str:
    """What is wrong with the files of a checkpoint, compared with their digests; empty if nothing is."""
    for name, (size, digest) in files.items():
        file = folder / name
        try:
            if (found := file.stat().st_size) != size:
                return f"{name} has {found} bytes instead of {size}"
            if digest_of(file) != digest:
                return f"{name} has changed"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def digest_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of(body: Mapping[str, Any]) -> str:
    """Of the content, whatever its white space; JSON's numbers come back as they were written."""
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()
