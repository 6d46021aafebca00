"""Files that a killed process leaves whole: replaced in one step, or growing by whole lines; and a disk's troubles."""

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clmed.errors import UserError


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk troubles that a user can mend into a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{path}: the disk is full (or your quota is used up); free some space there.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserError(f"{path} cannot be written ({error.strerror}); give another folder.") from error
        raise


def write_whole(file: Path, content: bytes) -> None:
    """Replace `file` in one step: a reader sees the old content or the new, never a part."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replace `file` in one step."""
    write_whole(file, (json.dumps(content, ensure_ascii=False, indent=2, default=_plain) + "\n").encode())


def read_json(file: Path) -> dict[str, Any]:
    """{} if it was never written. Raises UserError where it is damaged."""
    try:
        content = json.loads(file.read_bytes()) if file.exists() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}") from error
    except OSError as error:
        raise unreadable(file, error) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged: not a JSON object")
    return content


def unreadable(file: Path, error: OSError) -> UserError:
    """A folder in the place of a file, a disk that fails, somebody else's file."""
    return UserError(f"{file} cannot be read ({error.strerror}).")


def _plain(value: Any) -> Any:
    """A numpy or torch scalar as a Python number, a path as text."""
    return value.item() if hasattr(value, "item") else str(value)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=_plain) + "\n"


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a line file in one step."""
    write_whole(file, "".join(map(_line, rows)).encode())


def append_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a line file, all at once."""
    lines = "".join(map(_line, rows)).encode()
    with disk_errors(file.parent), file.open("ab+") as stream:
        # Cut off the torn line of a killed run, lest it end in the middle of the file.
        if stream.tell() and _last_byte(stream) != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(lines)


def is_torn(file: Path) -> bool:
    """Whether the last line of a line file has no end."""
    try:
        with file.open("rb") as stream:
            return stream.seek(0, os.SEEK_END) > 0 and _last_byte(stream) != b"\n"
    except OSError:
        return False


def _last_byte(stream: Any) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a line file; [] if it was never written. A last line without its end belongs to a killed run."""
    if not file.exists():
        return []
    try:
        *lines, _torn = file.read_bytes().split(b"\n")
    except OSError as error:
        raise unreadable(file, error) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file}, line {number} is damaged ({error}); mend or delete this line.") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}, line {number} is damaged (not a JSON object); mend or delete this line.")
        rows.append(row)
    return rows
