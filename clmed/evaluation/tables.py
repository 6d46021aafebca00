"""Exam files, in folders or on the hub, to records by subject: CSV as MMLU, CMMLU and CMExam publish it.

Cells are text: "None" and "NA" are options like any other (pandas would read them as missing, ten in MMLU alone).
"""

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from clmed.data.sources import hub_place, hub_table
from clmed.errors import UserError
from clmed.evaluation import subjects

Kind = Literal["mmlu", "cmmlu", "cmexam"]
Part = Literal["dev", "test"]
Rows = list[tuple[str, Mapping[str, Any]]]  # (place, record); the place is for messages: file and line, or row

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "mmlu": ("question", "choices", "answer", "subject"),
    "cmmlu": ("Question", "A", "B", "C", "D", "Answer"),
    "cmexam": ("Question", "Options", "Answer"),
}


def read_tables(kind: Kind, path: str, local: Path | None, part: Part) -> dict[str, Rows]:
    """Subject -> rows of the dev or the test part, subjects by name (CMExam: one subject, named as the benchmark)."""
    if local is None:
        tables = _hub_tables(kind, path, part)
    elif kind == "cmexam":
        tables = {kind: _with_header(kind, local)}
    else:
        tables = _folder_tables(kind, local, part)
    return dict(sorted(tables.items()))


def _folder_tables(kind: Kind, folder: Path, part: Part) -> dict[str, Rows]:
    ending = f"_{part}.csv" if kind == "mmlu" else ".csv"
    # Names with a dot in front are what macOS and editors leave behind.
    files = [file for file in (folder / part).glob("*.csv") if not file.name.startswith(".")]
    if not files:
        raise UserError(f"{folder / part} holds no files; {kind} needs files such as {part}/anatomy{ending}.")
    if wrong := [file for file in files if not file.name.endswith(ending)]:
        raise UserError(f"{wrong[0]} must be named <subject>{ending} to be read as {kind}.")
    read = _without_header if kind == "mmlu" else _with_header
    return {file.name.removesuffix(ending): read(kind, file) for file in files}


def _without_header(kind: Kind, file: Path) -> Rows:
    """MMLU's six cells a row as the hub's columns."""
    rows: Rows = []
    for place, cells in _read_csv(file):
        if len(cells) != 6:
            raise UserError(
                f"{place}: {len(cells)} cells, but {kind} has six: question, A, B, C, D, answer. "
                "A cell that holds a comma must stand in double quotes."
            )
        rows.append((place, {"question": cells[0], "choices": cells[1:5], "answer": cells[5]}))
    return rows


def _with_header(kind: Kind, file: Path) -> Rows:
    table = _read_csv(file)
    if not table:
        raise UserError(f"{file} is empty; its first line must name the columns {', '.join(COLUMNS[kind])}.")
    header = [name.strip() for name in table[0][1]]
    _check_columns(kind, header, str(file))
    if twice := [name for name in COLUMNS[kind] if header.count(name) > 1]:
        raise UserError(f"{file} has two columns {twice[0]}; rename or delete one.")
    for place, cells in table[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"{place}: {len(cells)} cells, but the header names {len(header)} columns. "
                "A cell that holds a comma or a line end must stand in double quotes."
            )
    return [(place, dict(zip(header, cells, strict=True))) for place, cells in table[1:]]


def _check_columns(kind: Kind, columns: Sequence[str], place: str) -> None:
    if missing := [name for name in COLUMNS[kind] if name not in columns]:
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


def _hub_tables(kind: Kind, path: str, part: Part) -> dict[str, Rows]:
    if kind == "cmexam":
        return {kind: _hub_rows(kind, path, None, "test" if part == "test" else "train")}
    if kind == "cmmlu":
        return {subject: _hub_rows(kind, path, subject, part) for subject in subjects.CMMLU_NAMES}
    tables: defaultdict[str, Rows] = defaultdict(list)
    for place, record in _hub_rows(kind, path, "all", part):
        tables[record["subject"]].append((place, record))
    return tables


def _hub_rows(kind: Kind, path: str, subset: str | None, split: str) -> Rows:
    where, table = hub_place(path, subset, split), hub_table(path, subset, split)
    _check_columns(kind, table.column_names, where)
    return [(f"{where}, row {index + 1}", record) for index, record in enumerate(table)]
