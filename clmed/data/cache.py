"""Where derived files live, and how they are made: once, whole or not at all, however many processes ask."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clmed.errors import UserError


def cache_dir() -> Path:
    """$CLMED_CACHE, else ~/.cache/clmed. The folder need not exist yet."""
    chosen = os.environ.get("CLMED_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "clmed"


def build_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, made by `make(partial)` if it is not there yet.

    `make` fills a new folder beside the final one, which is renamed when it is complete: whoever sees `folder` sees all
    of it. A lock file lets one process build while the others wait. Where the file system has no locks, several build
    and the first to finish wins. If `make` fails, nothing is left; a killed process leaves a `*.partial` folder, which
    nobody reads. Raises UserError when the cache cannot be written or the disk is full.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                _build(folder, make)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR):
            raise
        raise UserError(
            f"cannot write the cache folder {folder}: {error.strerror}. "
            "Make room there, or set CLMED_CACHE to a folder that can be written."
        ) from error
    return folder


def _build(folder: Path, make: Callable[[Path], None]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    partial.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
    try:
        make(partial)
        try:
            partial.rename(folder)
        except OSError as error:
            # Without locks another process may have been first; its folder holds the same.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system frees it when the process ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
        yield
