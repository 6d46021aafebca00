"""From a name to records: CSV, JSONL, JSON and Parquet files, and data sets of the Hugging Face hub.

Everything but .json is streamed, so that memory does not grow with the corpus. A .json file holds a list of records, a
mapping from ids to records (PubMedQA), or, as many do, one record a line.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clmed.config import SourceConfig
from clmed.errors import UserError

Record = dict[str, Any]
Numbered = tuple[int, Record]

# An unclosed quote swallows the file: stop before it fills the memory. Python's own limit (2**17) is too low.
CELL_LIMIT = 2**26


@dataclass
class Reading:
    """How far the reading of a source has come: `done` of `total` (bytes of a text file, else records)."""

    done: int = 0
    total: int | None = None


def columns(source: SourceConfig) -> tuple[str, ...]:
    """The columns that the source's format reads; those of exams are CMExam's."""
    if source.format == "text":
        return (source.text,)
    if source.format == "qa":
        return (source.question, source.answer)
    if source.format == "chat":
        pair = (source.question, source.answer, *([source.input] if source.input is not None else []))
        return pair if source.messages is None else (source.messages,)
    explanation = () if source.target == "answer" else ("Explanation",)
    return ("Question", "Options", "Answer", *explanation)


def records(source: SourceConfig, local: Path | None, reading: Reading | None = None) -> Iterator[Numbered]:
    """(number, record) one by one; every record has the columns of the format.

    `local` is the file, or None for a hub data set; `reading` is kept up to date. The number is what `place` shows: the
    line on which the record begins (CSV, JSONL) or the record's, counted from 1. Raises UserError for a file that
    cannot be read or understood, a missing column, and an empty corpus.
    """
    needed = columns(source)
    reading = reading or Reading()
    number = 0
    for number, record in _hub(source, reading) if local is None else read_file(local, needed, reading):
        missing = [column for column in needed if column not in record]
        if missing:
            raise UserError(
                f"{place(source, local, number)}: there is no column {missing[0]!r}; there are "
                f"{', '.join(map(repr, record)) or 'none'}. Name the columns in the source's settings."
            )
        yield number, record
    if not number:
        raise UserError(f"{local or source.path} holds no records.")


def place(source: SourceConfig, local: Path | None, number: int) -> str:
    """Where record `number` stands, for messages: "data/train.csv, line 12"."""
    by_line = local is not None and local.suffix in (".csv", ".jsonl")
    return f"{local or source.path}, {'line' if by_line else 'record'} {number}"


def load_hub(source: SourceConfig) -> Any:
    """The hub data set of a source as a memory-mapped `datasets.Dataset`, downloaded at first use."""
    return hub_table(source.path, source.subset, source.split)


def hub_table(path: str, subset: str | None, split: str) -> Any:
    """One split of a hub data set. Raises UserError when it cannot be had: no network, no such name, or a data set that
    is a script, which `datasets` no longer runs."""
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        return datasets.load_dataset(path, subset, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"{hub_place(path, subset, split)} cannot be loaded from the hub: {reason}. If a local file or folder was "
            f"meant: there is no {path} under data_root. What the hub does not give can be downloaded by other means; "
            "name the local file or folder as `path`."
        ) from error


def hub_place(path: str, subset: str | None, split: str) -> str:
    """A split of a hub data set, for messages."""
    return f"{path} ({f'subset {subset}, ' if subset else ''}split {split})"


def _hub(source: SourceConfig, reading: Reading) -> Iterator[Numbered]:
    dataset = load_hub(source)
    reading.total = len(dataset)
    kept = [column for column in dataset.column_names if column in columns(source)]
    # Without a needed column the record goes out whole, for the message that lists the columns.
    records = dataset.select_columns(kept) if len(kept) == len(set(columns(source))) else dataset
    for reading.done, record in enumerate(records, start=1):
        yield reading.done, record


def read_file(path: Path, needed: tuple[str, ...] = (), reading: Reading | None = None) -> Iterator[Numbered]:
    """(number, record) of a local file; the number is a line (CSV, JSONL) or counts records from 1.

    Of Parquet only the `needed` columns are read, where all are there. Raises UserError, with file and line.
    """
    readers: dict[str, Callable[[Path, Reading], Iterator[Numbered]]] = {
        ".csv": _csv,
        ".jsonl": _jsonl,
        ".json": _json,
        ".parquet": lambda path, reading: _parquet(path, needed, reading),
    }
    if path.suffix not in readers:
        raise UserError(f"{path}: unknown kind of file {path.suffix!r}; the kinds read are {', '.join(readers)}.")
    return readers[path.suffix](path, reading or Reading())


def _lines(path: Path, reading: Reading) -> Iterator[str]:
    """The lines of a UTF-8 file (a byte-order mark is dropped), line ends kept as they are."""
    reading.done = 0
    try:
        with path.open("rb") as file:
            reading.total = os.fstat(file.fileno()).st_size
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                reading.done += len(line)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: not UTF-8 at byte {reading.done + error.start} of the file ({error.reason}). "
            "Save the file in UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


def _csv(path: Path, reading: Reading) -> Iterator[Numbered]:
    csv.field_size_limit(max(CELL_LIMIT, csv.field_size_limit()))
    reader = csv.reader(_lines(path, reading), strict=True)
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise UserError(f"{path}: a column name occurs twice in the header: {', '.join(header)}.")
            elif cells:  # a blank line is no record
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}, line {begins}: {len(cells)} cells where the header has {len(header)}. "
                        "A cell with commas, quotes or line ends must stand in quotes."
                    )
                yield begins, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}: the row that begins on line {begins} is malformed ({error}). Is a quote left open?"
        ) from error


def _jsonl(path: Path, reading: Reading) -> Iterator[Numbered]:
    for number, line in enumerate(_lines(path, reading), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: {_malformed(error)}.") from error
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number}: a record must be a JSON object ({{...}}), not {line.strip()[:40]}."
            )
        yield number, record


def _json(path: Path, reading: Reading) -> Iterator[Numbered]:
    try:
        content = json.loads("".join(_lines(path, reading)))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # several values: one a line
            yield from _jsonl(path, reading)
            return
        raise UserError(f"{path}, line {error.lineno}: {_malformed(error)}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {_malformed(error)}.") from error
    entries: Iterable[tuple[Any, Any]]
    if isinstance(content, dict):
        entries = content.items()
    elif isinstance(content, list):
        entries = enumerate(content, start=1)
    else:
        raise UserError(f"{path} holds neither a JSON list of records nor a mapping from ids to records.")
    for number, (key, record) in enumerate(entries, start=1):
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, record {key}: a record must be a JSON object ({{...}}), not {str(record)[:40]!r}."
            )
        yield number, record


def _malformed(error: ValueError | RecursionError) -> str:
    """What `json.loads` found wrong; it also refuses numbers of thousands of digits, and what is nested too deeply."""
    if isinstance(error, json.JSONDecodeError):
        return f"malformed JSON at column {error.colno} ({error.msg})"
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
    return f"malformed JSON ({reason})"


def _parquet(path: Path, needed: tuple[str, ...], reading: Reading) -> Iterator[Numbered]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as handle:
            file = pyarrow.parquet.ParquetFile(handle)
            kept = [column for column in needed if column in file.schema_arrow.names]
            reading.total = file.metadata.num_rows
            for batch in file.iter_batches(batch_size=256, columns=kept if kept and len(kept) == len(needed) else None):
                for record in batch.to_pylist():
                    reading.done += 1
                    yield reading.done, record
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
