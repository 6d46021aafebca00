"""A source, streamed as units: what duplicates and test questions are searched in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed.config import SourceConfig
from clmed.data import formats, sources
from clmed.data.rows import Part, part_of
from clmed.data.sources import Record
from clmed.data.units import Units, units
from clmed.errors import UserError

_BATCH_CHARACTERS = 2**18


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some records of a source: their numbers (see `sources.records`), themselves, and their texts cut into units."""

    numbers: list[int]
    records: list[Record]
    units: Units
    bytes: int


def batches(source: SourceConfig, local: Path | None) -> Iterator[Batch]:
    """All records in batches of some 250,000 characters, whatever part they belong to."""
    numbers: list[int] = []
    records: list[Record] = []
    texts: list[str] = []
    characters = 0
    columns = sources.columns(source)
    for number, record in sources.records(source, local):
        text = record_text(record, columns)
        numbers.append(number)
        records.append(record)
        texts.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield _batch(numbers, records, texts)
            numbers, records, texts, characters = [], [], [], 0
    if numbers:
        yield _batch(numbers, records, texts)


def _batch(numbers: list[int], records: list[Record], texts: list[str]) -> Batch:
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return Batch(numbers=numbers, records=records, units=units(texts), bytes=size)


def size_of(source: SourceConfig, local: Path | None) -> int:
    """Bytes of a source, roughly those of its texts."""
    return local.stat().st_size if local is not None else int(sources.load_hub(source).data.nbytes)


def record_text(record: Record, columns: tuple[str, ...]) -> str:
    """Everything that the format reads of a record, in the order of its columns.

    Of an exam these are the stem, all options and the explanation, even if only the right option's text is trained on.
    """
    return "\n".join(cell_text(record[column]) for column in columns)


def cell_text(cell: Any) -> str:
    """All text of a cell: what is nested in it becomes lines, a missing value (None, not-a-number) the empty text."""
    if isinstance(cell, Mapping):
        return "\n".join(map(cell_text, cell.values()))
    if isinstance(cell, list):
        return "\n".join(map(cell_text, cell))
    return "" if cell is None or cell != cell else str(cell)


def part_of_record(source: SourceConfig, local: Path | None, number: int, record: Record) -> Part | None:
    """The part that a record's document belongs to; None when it holds none."""
    try:
        pieces = formats.texts(source, record)
    except ValueError as error:
        raise UserError(f"{sources.place(source, local, number)}: {error}.") from error
    return part_of("".join(text for text, _ in pieces), source) if pieces else None
