"""Tensors that all ranks make together, kept in the cache by the content of everything that makes them.

    <cache>/<kind>/<key>/  manifest.json  0.safetensors  1.safetensors  …      one file a rank, with their checksums

Whoever sees the folder sees all of it: it is written under a hidden name and renamed. What is damaged is made again.
The cache must be on a disk that all ranks share.
"""

import errno
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

import clmed
from clmed.config import fingerprint
from clmed.data.cache import cache_dir
from clmed.results import manifest
from clmed.results.manifest import Digests
from clmed.results.rundir import disk_errors
from clmed.training.export import plain_errors
from clmed.training.sharding import World, any_rank, first_rank_says, on_all_ranks, on_first_rank

RECIPE = 1  # raised when a change of the code changes what is kept


def keep(world: World, kind: str, recipe: Any, make: Callable[[], Mapping[str, Tensor]]) -> tuple[Path, Digests]:
    """The folder, made unless it is there whole, and its files' checksums. All ranks call this.

    recipe: all that the tensors depend on but the versions of the code; make: this rank's tensors, on all ranks.
    """
    known = [RECIPE, clmed.__version__, torch.__version__, transformers.__version__, torch.get_num_threads()]
    folder = cache_dir() / kind / fingerprint([*known, str(world.device), recipe])
    with disk_errors(folder.parent):
        if any_rank(world, bool(_damage(folder, world))):
            on_first_rank(world, lambda: shutil.rmtree(folder, ignore_errors=True))
            _write(world, folder, make())
        return folder, manifest.read(folder).files


def _damage(folder: Path, world: World) -> str:
    """What is wrong with this rank's part of the files, which need not be those that it reads."""
    try:
        files = manifest.read(folder).files
    except ValueError as error:
        return str(error)
    return manifest.damage(folder, {name: files[name] for name in sorted(files)[world.rank :: world.ranks]})


def _write(world: World, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    partial = folder.with_name(first_rank_says(world, f".{folder.name}.{uuid4().hex}.partial"))

    def write() -> Digests:
        file = partial / f"{world.rank}.safetensors"
        with plain_errors(partial):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        return {file.name: [file.stat().st_size, manifest.digest_of(file)]}

    def finish() -> None:
        manifest.write(partial, {name: found for part in digests for name, found in part.items()}, json.dumps({}))
        try:
            partial.rename(folder)
        except OSError as error:  # another run was first; its folder holds the same
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    try:
        on_first_rank(world, lambda: partial.mkdir(parents=True))
        digests = on_all_ranks(world, write)
        on_first_rank(world, finish)
    finally:
        if world.main:
            shutil.rmtree(partial, ignore_errors=True)
