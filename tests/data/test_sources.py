import csv
import json
import os
from pathlib import Path

import pytest

from clmed.config import SourceConfig
from clmed.data.sources import place, records
from clmed.errors import UserError

RECORDS = [
    {"question": 'What, exactly, is "Karo"?', "answer": "A city.\nOn the Vell."},
    {"question": "桂枝汤的主要成分是什么？", "answer": "桂枝、芍药"},
    {"question": "long", "answer": "x" * 200_000},  # above the csv module's own limit
]
QA = SourceConfig(path="given", format="qa")


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8-sig")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_every_kind_of_file_gives_the_same_records(tmp_path, suffix):
    path = write(tmp_path / f"data{suffix}", RECORDS)
    assert [record for _, record in records(QA, path)] == RECORDS


def test_a_json_file_may_map_ids_to_records_or_hold_one_record_a_line(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps({str(number): row for number, row in enumerate(RECORDS)}))
    assert [record for _, record in records(QA, path)] == RECORDS
    path.write_text("\n".join(map(json.dumps, RECORDS)))
    assert [record for _, record in records(QA, path)] == RECORDS


def test_the_number_is_the_line_on_which_the_record_begins(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b'question,answer\r\n"a\nb",c\r\n\r\nd,"e\n\n"\r\nf,g\r\n')
    found = list(records(QA, path))
    assert [number for number, _ in found] == [2, 5, 8]
    assert found[1][1] == {"question": "d", "answer": "e\n\n"}
    assert place(QA, path, 5) == f"{path}, line 5"


def test_parquet_reads_only_the_columns_of_the_format(tmp_path):
    path = write(tmp_path / "data.parquet", [{**row, "other": 1} for row in RECORDS])
    assert [record for _, record in records(QA, path)] == RECORDS


GOOD = b"question,answer\na,b\n"
BAD = {
    "cells-missing": ("x.csv", GOOD + b"c\n", "x.csv, line 3: 1 cells where the header has 2"),
    "cells-too-many": ("x.csv", GOOD + b"c,d,e\n", "x.csv, line 3: 3 cells where the header has 2"),
    "quote-open": ("x.csv", GOOD + b'c,"d\ne,f\n', "x.csv: the row that begins on line 3 is malformed"),
    "quote-inside": ("x.csv", GOOD + b'"c"c,d\n', "x.csv: the row that begins on line 3 is malformed"),
    "header-twice": ("x.csv", b"answer,answer\na,b\n", "a column name occurs twice"),
    "not-utf8": ("x.csv", GOOD + "问题".encode("gbk"), "x.csv, line 3: not UTF-8 at byte 20 of the file"),
    "utf16": ("x.jsonl", '{"question": "a"}'.encode("utf-16"), "x.jsonl, line 1: not UTF-8 at byte 0"),
    "no-column": ("x.csv", b"prompt,reply\na,b\n", "no column 'question'; there are 'prompt', 'reply'"),
    "no-column-line": (
        "x.jsonl",
        b'{"question": "a", "answer": "b"}\n{"question": "a"}\n',
        "line 2: there is no column",
    ),
    "no-column-parquet": (
        "x.parquet",
        [{"prompt": "a", "reply": "b"}],
        "no column 'question'; there are 'prompt', 'reply'",
    ),
    "json-line": (
        "x.jsonl",
        b'{"question": "a", "answer": "b"}\n{"question": \n',
        "x.jsonl, line 2: malformed JSON at column",
    ),
    "json-nested": (
        "x.jsonl",
        b'{"question": "a", "answer": "b"}\n' + b"[" * 100_000,
        "x.jsonl, line 2: malformed JSON (nested too deeply)",
    ),
    "json-number": ("x.jsonl", b'{"question": ' + b"9" * 5000 + b"}", "x.jsonl, line 1: malformed JSON (Exceeds the"),
    "json-file-nested": ("x.json", b"[" * 100_000, "x.json: malformed JSON (nested too deeply)"),
    "json-line-list": ("x.jsonl", b'["a"]\n', "x.jsonl, line 1: a record must be a JSON object"),
    "json-broken": ("x.json", b'[{"question": "a",\n}]', "x.json, line 2: malformed JSON at column"),
    "json-answers": ("x.json", b'{"12377809": "yes"}', "x.json, record 12377809: a record must be a JSON object"),
    "json-text": ("x.json", b'"text"', "neither a JSON list of records nor a mapping"),
    "no-parquet": ("x.parquet", b"PAR0", "x.parquet cannot be read as Parquet"),
    "empty": ("x.csv", b"", "x.csv holds no records"),
    "header-only": ("x.csv", b"question,answer\n", "x.csv holds no records"),
    "empty-list": ("x.json", b"[]", "x.json holds no records"),
    "kind": ("x.txt", b"text", "unknown kind of file '.txt'; the kinds read are .csv, .jsonl, .json, .parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_names_the_file_and_the_place_in_one_paragraph(tmp_path, name):
    file, content, message = BAD[name]
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write(path, content)
    with pytest.raises(UserError) as error:
        list(records(QA, path))
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_missing_file_and_a_directory_are_refused(tmp_path, suffix):
    with pytest.raises(UserError, match="No such file"):
        list(records(QA, tmp_path / f"none{suffix}"))
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        list(records(QA, tmp_path / f"folder{suffix}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = write(tmp_path / "data.csv", RECORDS)
    path.chmod(0)
    with pytest.raises(UserError, match=r"cannot read .*data\.csv: Permission denied"):
        list(records(QA, path))


def test_a_hub_data_set_is_loaded_by_its_name_subset_and_split(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list([{**row, "other": 1} for row in RECORDS])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = SourceConfig(path="somebody/pairs", subset="zh", split="validation", format="qa")
    assert list(records(source, None)) == list(enumerate(RECORDS, start=1))
    assert asked == [(("somebody/pairs", "zh"), {"split": "validation"})]
    with pytest.raises(UserError, match=r"somebody/pairs, record 1: there is no column 'text'.*'other'"):
        list(records(SourceConfig(path="somebody/pairs", format="text"), None))


def test_a_hub_data_set_that_cannot_be_loaded_is_a_user_error(monkeypatch):
    import datasets

    def load_dataset(*args, **kwargs):
        raise ValueError("Config name is missing.\nPlease pick one among: ['zh', 'en']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"somebody/pairs \(split train\) cannot be loaded.*\['zh', 'en'\]"):
        list(records(SourceConfig(path="somebody/pairs", format="qa"), None))


REAL = {
    "cmexam/train.csv": (SourceConfig(path="x", format="exam", target="explanation_then_answer"), 5000),
    "medical/cmedqa2.jsonl": (QA, 4000),
    "general/alpaca_zh.jsonl": (SourceConfig(path="x", format="qa", question="instruction", answer="output"), 1000),
    "general/wikipedia_en.jsonl": (SourceConfig(path="x", format="text"), 30),
    "general/c4_sample.jsonl": (SourceConfig(path="x", format="text"), 300),
    "medical/pubmedqa/ori_pqal.json": (SourceConfig(path="x", format="text", text="CONTEXTS"), 1000),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole(real_data, name):
    source, rows = REAL[name]
    path = real_data / name
    found = [record for _, record in records(source, path)]
    assert len(found) == rows
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            assert found == list(csv.DictReader(file))
    elif path.suffix == ".jsonl":
        assert found == [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    else:
        assert found == list(json.loads(path.read_text(encoding="utf-8")).values())
