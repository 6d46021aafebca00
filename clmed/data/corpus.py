"""The configured sources as packed rows, each prepared at first use."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clmed.config import ExperimentConfig, SourceConfig, resolve
from clmed.data.rows import Part, counts, prepare
from clmed.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

NOTHING: Mapping[str, frozenset[int]] = {}
Place = tuple[str, int]  # a source and a row of it
COUNTS = ("tokens", "supervised", "mass", "bytes")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Packed rows of one source: the rows themselves memory-mapped, their counts in memory.

    tokens, supervised, mass, bytes: (rows,) tokens without padding, tokens with a loss, the sum of their weights in the
    loss, bytes of text: 20 bytes a row, so 20 MB for a billion tokens in rows of 1,024.
    """

    data: "Dataset"
    tokens: np.ndarray
    supervised: np.ndarray
    mass: np.ndarray
    bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def of(data: "Dataset") -> "Rows":
        return Rows(data=data, **{key: np.asarray(data[key][:]) for key in COUNTS})

    @staticmethod
    def joined(parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts, one after the other."""
        from datasets import concatenate_datasets

        data = concatenate_datasets([part.data for part in parts])
        return Rows(data=data, **{key: np.concatenate([getattr(part, key) for part in parts]) for key in COUNTS})

    def select(self, rows: np.ndarray) -> "Rows":
        """The given rows, in the given order."""
        return Rows(data=self.data.select(rows), **{key: getattr(self, key)[rows] for key in COUNTS})


class Corpus:
    """Rows of every source, by name and part."""

    def __init__(
        self,
        *,
        sources: Mapping[str, SourceConfig],
        paths: Mapping[str, Path | None],
        tokenizer: "PreTrainedTokenizerBase",
        length: int,
        left_out: Mapping[str, frozenset[int]] = NOTHING,
    ) -> None:
        """paths: the local file of each source, None for one of the hub; length: tokens of a row; left_out: records to
        pass over, by source (see clmed.data.cleaning)."""
        self.sources, self.paths, self.tokenizer, self.length = sources, paths, tokenizer, length
        self.left_out = left_out
        for name, source in sources.items():
            if (source.deduplicate or source.decontaminate) and name not in left_out:
                raise ValueError(f"data.{name} is to be cleaned, but nobody has found out what is to be left out of it")
        self._rows: dict[tuple[str, str], Rows] = {}

    @staticmethod
    def of(
        config: ExperimentConfig,
        tokenizer: "PreTrainedTokenizerBase",
        length: int,
        left_out: Mapping[str, frozenset[int]] = NOTHING,
    ) -> "Corpus":
        """The sources of an experiment as rows of `length` tokens."""
        paths = {name: resolve(config, source.path) for name, source in config.data.items()}
        return Corpus(sources=config.data, paths=paths, tokenizer=tokenizer, length=length, left_out=left_out)

    def rows(self, name: str, part: Part = "train") -> Rows:
        """The rows of one part of a source. Raises UserError for a name that is no source."""
        if name not in self.sources:
            raise UserError(f"There is no source {name!r} to take rows from; there are {', '.join(self.sources)}.")
        if (name, part) not in self._rows:
            without = self.left_out.get(name, frozenset())
            arguments: dict[str, Any] = {"tokenizer": self.tokenizer, "length": self.length, "left_out": without}
            self._rows[name, part] = Rows.of(prepare(name, self.sources[name], self.paths[name], part, **arguments))
        return self._rows[name, part]

    def in_use(self) -> dict[str, Rows]:
        """The rows of every source taken so far: its held-out part if that was taken, else what is trained on."""
        order = ("fisher", "train", "heldout")  # the last one stays
        parts = sorted(self._rows.items(), key=lambda item: order.index(item[0][1]))
        return {name: rows for (name, _), rows in parts}

    def packed(self) -> Iterator[str]:
        """How full the rows are, a line for each source trained on so far whose documents are kept whole."""
        for (name, part), rows in self._rows.items():
            if part == "train" and self.sources[name].format != "text":
                tokens, positions = int(rows.tokens.sum(dtype=np.int64)), len(rows) * self.length
                yield (
                    f"data.{name}: {counts(rows.data).documents:,} documents in {len(rows):,} rows of {self.length:,}, "
                    f"{tokens / positions:.1%} of their positions used (at least {-(-tokens // self.length):,} rows "
                    "are needed)"
                )


def reservoir(sources: Mapping[str, Rows], size: int, seed: int) -> Rows:
    """A uniform sample of at most `size` rows of several sources: those with the smallest random keys.

    A row's key depends on (seed, source, row) alone. So the sample is uniform, needs no state, and as sources are added
    it changes as a reservoir does (Vitter, 1985): rows only leave it for rows of the new ones.
    """
    names = list(sources)
    return Rows.joined([sources[name] for name in names]).select(_chosen(sources, size, seed))


def reservoir_places(sources: Mapping[str, Rows], size: int, seed: int) -> list[Place]:
    """Where the rows of `reservoir` come from, in their order."""
    names, chosen = list(sources), _chosen(sources, size, seed)
    starts = np.cumsum([0, *(len(sources[name]) for name in names)])
    which = np.searchsorted(starts, chosen, side="right") - 1
    return [(names[source], int(index - starts[source])) for source, index in zip(which, chosen, strict=True)]


def _chosen(sources: Mapping[str, Rows], size: int, seed: int) -> np.ndarray:
    keys = [np.random.default_rng([seed, *name.encode()]).random(len(rows)) for name, rows in sources.items()]
    return np.sort(np.argsort(np.concatenate(keys), kind="stable")[:size])


def balanced(groups: Sequence[Mapping[str, Rows]], size: int, seed: int) -> Rows:
    """A sample of at most `size` rows with equally many of each group: from each a reservoir with its own place in it.

    What a group is too small for goes to the others, and a remainder row by row to the first ones. As groups are added
    rows only leave the sample of the earlier ones.
    """
    rooms = [sum(map(len, group.values())) for group in groups]
    shares = equal_shares(size, rooms)
    return Rows.joined([reservoir(group, share, seed) for group, share in zip(groups, shares, strict=True) if share])


def equal_shares(total: int, rooms: Sequence[int]) -> list[int]:
    """`total` dealt out so that no share is above its room, nor more than 1 above another that has room left."""
    total = min(total, sum(rooms))
    level = bisect_right(range(total + 1), total, key=lambda height: sum(min(room, height) for room in rooms)) - 1
    shares = [min(room, level) for room in rooms]
    for index in [index for index, room in enumerate(rooms) if room > level][: total - sum(shares)]:
        shares[index] += 1
    return shares
