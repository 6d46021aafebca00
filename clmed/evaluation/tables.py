"""Exam files, in folders or on the hub, to records by subject: CSV as exams are published, JSON, JSONL and Parquet.

Cells of CSV are text: "None" and "NA" are options like any other (pandas would read them as missing, ten in MMLU).
"""

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clmed.config import BenchmarkConfig
from clmed.data.sources import hub_place, hub_table, read_file
from clmed.errors import UserError

Part = Literal["dev", "test"]
Rows = list[tuple[str, Mapping[str, Any]]]  # (place, record); the place is for messages: file and line, or row


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the rows of an exam are, on the hub and in local files.

    columns: those that must be there (in every file that has a header);
    hub: the id that is read where no path is given; its `subset`, or one for each subject (`subsets`);
    splits: what the questions and the shots are called, on the hub and in a folder;
    subject: the column with the subject of a row, where one table holds several subjects;
    folder: a pattern with {split} and one *, the subject, where there is a file for each; None: a local path is one
        file, or a folder that holds one of the name `file`;
    cells: the names of the cells of files without a header; ("choices", 4) are four cells as a list.
    """

    columns: tuple[str, ...]
    hub: str | None = None
    subset: str | None = None
    subsets: tuple[str, ...] = ()
    splits: Mapping[Part, str] = field(default_factory=lambda: {"test": "test", "dev": "train"})
    subject: str | None = None
    folder: str | None = None
    file: str | None = None
    cells: tuple[str | tuple[str, int], ...] | None = None

    def split(self, part: Part, config: BenchmarkConfig) -> str:
        """What a part is called; the configuration may choose another test."""
        return config.split if part == "test" and config.split is not None else self.splits[part]

    def problems(self, config: BenchmarkConfig, local: Path | None) -> Iterator[tuple[str, str]]:
        """(key, what is wrong with it) for settings that cannot be met, without reading any rows."""
        if local is None:
            if config.path is None and self.hub is None:
                yield "path", f"{config.benchmark} has no hub id of its own: name a file or a hub data set"
            return
        if config.subset is not None:
            yield "subset", f"is for hub data sets, but {local} is a local path"
        if self.folder is None:
            yield from self._problems_of_a_file(config, local)
        elif local.exists():
            parts: tuple[Part, ...] = ("test", "dev") if config.shots and config.shots_from is None else ("test",)
            for split in (self.split(part, config) for part in parts):
                if not (local / split).is_dir():
                    yield "path", f"{local}: {config.benchmark} needs a folder with {split}/ in it"

    def _problems_of_a_file(self, config: BenchmarkConfig, local: Path) -> Iterator[tuple[str, str]]:
        if local.is_dir() and self.file is None:
            yield "path", f"{local} is a folder: {config.benchmark} needs one file, such as test.csv"
        elif local.is_dir() and not (local / str(self.file)).is_file():
            yield "path", f"{local}: {config.benchmark} needs a folder with {self.file} in it"
        if config.split is not None:
            yield "split", f"is for hub data sets, but {local} is a local file"
        if not local.is_dir() and config.shots and config.shots_from is None:
            yield (
                "shots",
                f"shots of {config.benchmark} need shots_from, a file whose first rows are shown (not the test file)",
            )


def read_tables(layout: Layout, name: str, config: BenchmarkConfig, local: Path | None, part: Part) -> dict[str, Rows]:
    """Subject -> rows of a part, subjects by name; where there are none, `name` is the only one.

    `local` is the folder or file (the same for both parts), or None for the hub. Raises UserError with file and line.
    """
    split = layout.split(part, config)
    if local is not None and layout.folder is not None:
        tables = _folder_tables(layout, name, local, split)
    elif local is not None:
        tables = _by_subject(layout, name, _file_rows(layout, local))
    else:
        path, wanted = config.path or layout.hub or "", config.subset
        if layout.subsets:
            subsets = layout.subsets if wanted is None else (wanted,)
            tables = {subset: _hub_rows(layout, path, subset, split) for subset in subsets}
        else:
            tables = _by_subject(layout, name, _hub_rows(layout, path, wanted or layout.subset, split))
    return dict(sorted(tables.items()))


def _by_subject(layout: Layout, name: str, rows: Rows) -> dict[str, Rows]:
    if layout.subject is None:
        return {name: rows}
    tables: defaultdict[str, Rows] = defaultdict(list)
    for place, record in rows:
        subject = record.get(layout.subject)
        if subject is None or not str(subject).strip():
            raise UserError(f"{place}: the column {layout.subject!r} names no subject.")
        tables[str(subject)].append((place, record))
    return tables


def _folder_tables(layout: Layout, name: str, folder: Path, split: str) -> dict[str, Rows]:
    pattern = (layout.folder or "").format(split=split)
    ending = pattern.partition("*")[2]
    # Names with a dot in front are what macOS and editors leave behind.
    files = [file for file in (folder / split).glob("*.csv") if not file.name.startswith(".")]
    if not files:
        raise UserError(f"{folder / split} holds no files; {name} needs files such as {split}/anatomy{ending}.")
    if wrong := [file for file in files if not file.name.endswith(ending)]:
        raise UserError(f"{wrong[0]} must be named <subject>{ending} to be read as {name}.")
    read = _with_header if layout.cells is None else _without_header
    tables = {file.name.removesuffix(ending): read(layout, file) for file in files}
    if empty := [subject for subject, rows in tables.items() if not rows]:
        raise UserError(f"{folder / split}: the file of {empty[0]} holds no questions; fill it or delete it.")
    return tables


def _file_rows(layout: Layout, file: Path) -> Rows:
    if file.suffix == ".csv":
        return _with_header(layout, file)
    word = "line" if file.suffix == ".jsonl" else "record"
    rows: Rows = [(f"{file}, {word} {number}", record) for number, record in read_file(file)]
    for place, record in rows:
        _check_columns(layout, record, place)
    return rows


def _without_header(layout: Layout, file: Path) -> Rows:
    """The cells of a row under the names of the layout."""
    assert layout.cells is not None
    sizes = [1 if isinstance(cell, str) else cell[1] for cell in layout.cells]
    names = [cell if isinstance(cell, str) else cell[0] for cell in layout.cells]
    rows: Rows = []
    for place, cells in _read_csv(file):
        if len(cells) != sum(sizes):
            raise UserError(
                f"{place}: {len(cells)} cells, but there must be {sum(sizes)}: {', '.join(names)} "
                f"({' + '.join(map(str, sizes))}). A cell that holds a comma must stand in double quotes."
            )
        left = iter(cells)
        taken = [next(left) if size == 1 else [next(left) for _ in range(size)] for size in sizes]
        rows.append((place, dict(zip(names, taken, strict=True))))
    return rows


def _with_header(layout: Layout, file: Path) -> Rows:
    table = _read_csv(file)
    if not table:
        raise UserError(f"{file} is empty; its first line must name the columns {', '.join(layout.columns)}.")
    header = [name.strip() for name in table[0][1]]
    _check_columns(layout, header, str(file))
    if twice := [name for name in layout.columns if header.count(name) > 1]:
        raise UserError(f"{file} has two columns {twice[0]}; rename or delete one.")
    for place, cells in table[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"{place}: {len(cells)} cells, but the header names {len(header)} columns. "
                "A cell that holds a comma or a line end must stand in double quotes."
            )
    return [(place, dict(zip(header, cells, strict=True))) for place, cells in table[1:]]


def _check_columns(layout: Layout, columns: Iterable[str], place: str) -> None:
    columns = list(columns)
    if missing := [name for name in layout.columns if name not in columns]:
        raise UserError(f"{place} lacks the columns {', '.join(missing)}; it has {', '.join(filter(None, columns))}.")


def _read_csv(file: Path) -> list[tuple[str, list[str]]]:
    """The rows of a file, each with its place; "line" is the line on which the row begins."""
    try:
        content = file.read_bytes()
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}: not UTF-8; convert the file, for example with iconv.") from error
    rows = []
    line = 1
    try:
        for cells in reader:
            if cells:
                cells = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in cells]
                rows.append((f"{file}, line {line}", cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}, line {line}: {error}; check the double quotes of the row.") from error
    return rows


def read_categories(folder: Path, known: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The folder's categories.csv, if there is one: subject -> categories; `known` are the subjects there are."""
    file = folder / "categories.csv"
    if not file.exists():
        return {}
    table = _read_csv(file)
    if not table or [name.strip() for name in table[0][1]] != ["subject", "category"]:
        raise UserError(f"{file}: the first line must be 'subject,category'.")
    categories: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for place, cells in table[1:]:
        subject, category = cells if len(cells) == 2 else ("", "")
        if not subject or not category or category == "all" or category.startswith("subject:"):
            raise UserError(f"{place}: a subject and a category other than 'all' and 'subject:…' are needed: {cells}.")
        if subject not in known:
            raise UserError(f"{place}: there is no subject {subject}; there are {', '.join(known)}.")
        categories[subject] += (category,)
    return dict(categories)


def _hub_rows(layout: Layout, path: str, subset: str | None, split: str) -> Rows:
    where, table = hub_place(path, subset, split), hub_table(path, subset, split)
    _check_columns(layout, table.column_names, where)
    return [(f"{where}, row {index + 1}", record) for index, record in enumerate(table)]
