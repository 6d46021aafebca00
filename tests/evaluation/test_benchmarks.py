"""The published files are read whole; every odd row follows its rule or is refused with file and line."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from clmed.errors import UserError
from clmed.evaluation.benchmarks import EXAMS
from clmed.evaluation.benchmarks import cmmlu as cmmlu_module
from clmed.evaluation.benchmarks import mmlu as mmlu_module
from tests.exam_files import load
from tests.exam_files import table as write

ROW = ["Which?", "one", "two", "three", "four", "B"]


def mmlu(folder: Path, *rows: list, subject: str = "anatomy", dev: list | None = None) -> Path:
    write(folder / "test" / f"{subject}_test.csv", *rows)
    if dev is not None:
        write(folder / "dev" / f"{subject}_dev.csv", *dev)
    return folder


def cmexam(path: Path, *rows: list, header: tuple = ("Question", "Options", "Answer", "Explanation")) -> Path:
    return write(path, list(header), *rows)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A folder that datasets.load_dataset takes like a hub id."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "hub"


# The published files


def test_mmlu_is_read_whole(real_data):
    benchmark = load("mmlu", real_data / "mmlu", shots=5)
    assert len(benchmark.questions) == 14_042
    assert benchmark.skipped == 0 and not benchmark.several
    assert len(benchmark.shots) == 57 and {len(shots) for shots in benchmark.shots.values()} == {5}
    by_subject = {question.subject: question.categories for question in benchmark.questions}
    counts = Counter(category for categories in by_subject.values() for category in categories)
    assert counts == {
        "STEM": 18,
        "humanities": 13,
        "social sciences": 12,
        "other": 14,
        "health": 8,
        "non-health": 49,
    }
    # As reported with the data set (Hendrycks et al., 2021; lm-evaluation-harness).
    questions = Counter(question.subject for question in benchmark.questions)
    assert questions["professional_law"] == 1534 and questions["moral_scenarios"] == 895
    assert [question.index for question in benchmark.questions[:100]] == list(range(100))
    # Cells that pandas would read as missing.
    texts = Counter(text for question in benchmark.questions for text in question.options.values())
    assert texts["None"] == 10
    shot = benchmark.shots["college_mathematics"][2]
    assert "\r" not in shot.stem and "\n" in shot.stem


def test_cmmlu_is_read_whole(real_data):
    benchmark = load("cmmlu", real_data / "cmmlu", shots=5)
    assert len(benchmark.questions) == 11_582
    assert benchmark.skipped == 0
    assert sum(len(shots) for shots in benchmark.shots.values()) == 335
    by_subject = {question.subject: question.categories for question in benchmark.questions}
    assert by_subject.keys() == cmmlu_module.NAMES.keys()
    counts = Counter(category for categories in by_subject.values() for category in categories)
    assert counts == {
        "STEM": 17,
        "humanities": 13,
        "social sciences": 22,
        "other": 15,
        "china-specific": 15,
        "medical": 9,
        "non-medical": 58,
    }
    assert all(tuple(question.options) == tuple("ABCD") for question in benchmark.questions)


def test_cmexam_is_read_whole(real_data):
    benchmark = load("cmexam", real_data / "cmexam" / "test.csv")
    assert len(benchmark.questions) == 1_000
    assert benchmark.skipped == 0 and benchmark.several
    assert Counter("".join(question.options) for question in benchmark.questions) == {"ABCDE": 977, "ABCD": 23}
    assert Counter(category for question in benchmark.questions for category in question.categories) == {
        "single": 969,
        "multiple": 31,
    }


def test_cmexam_parts_with_odd_rows(real_data):
    train = load("cmexam", real_data / "cmexam" / "train.csv")
    assert len(train.questions) == 4_999
    assert train.skipped == 1 and train.reasons[0].endswith("no known answer")
    with (real_data / "cmexam" / "train.csv").open("rb") as file:
        line = int(train.reasons[0].split("line ")[1].split(":")[0])
        assert "甲类目录" in b"".join(file.readlines()[line - 1 : line + 5]).decode()
    assert "ABDE" in {"".join(question.options) for question in train.questions}
    validation = load("cmexam", real_data / "cmexam" / "val.csv")
    assert len(validation.questions) == 811
    assert sum("".join(question.options) == "BCDE" for question in validation.questions) == 2


def test_tables_cover_the_subjects_once():
    for module, count in ((mmlu_module, 57), (cmmlu_module, 67)):
        names = [name for listed in module.CATEGORIES.values() for name in listed.split()]
        assert len(names) == len(set(names)) == count
    known = {name for listed in cmmlu_module.CATEGORIES.values() for name in listed.split()}
    assert set(cmmlu_module.CHINA.split()) < known and set(cmmlu_module.MEDICAL.split()) < known
    assert known == cmmlu_module.NAMES.keys()
    assert set(mmlu_module.HEALTH.split()) < {
        name for listed in mmlu_module.CATEGORIES.values() for name in listed.split()
    }


# Odd rows that are read


def test_text_stays_as_it_is(tmp_path):
    content = '\ufeff" A ""quoted"" question,\r\nwith a line ",NA, None,nan,"x, y",B\r\n\r\n'
    folder = tmp_path / "mmlu"
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "anatomy_test.csv").write_bytes(content.encode())
    (folder / "test" / "._anatomy_test.csv").write_bytes(b"\0\0")
    (question,) = load("mmlu", folder).questions
    assert question.stem == ' A "quoted" question,\nwith a line '
    assert question.options == {"A": "NA", "B": " None", "C": "nan", "D": "x, y"}
    assert question.answer == "B"


def test_duplicates_are_kept(tmp_path):
    benchmark = load("mmlu", mmlu(tmp_path, ROW, ROW, ["Q", "same", "same", "c", "d", "A"]))
    assert [question.index for question in benchmark.questions] == [0, 1, 2]


@pytest.mark.parametrize(
    ("cell", "letters"),
    [("DBA", "ABD"), (" A ", "A"), ("ＢＣ", "BC"), ("b", "B"), ("A,C", "AC"), ("E、A", "AE"), ("A，B", "AB")],
)
def test_answers_are_put_in_order(tmp_path, cell, letters):
    file = cmexam(tmp_path / "test.csv", ["问", "A 甲\nB 乙\nC 丙\nD 丁\nE 戊", cell, ""])
    assert load("cmexam", file).questions[0].answer == letters


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("B 乙\nC 丙\nD 丁", {"B": "乙", "C": "丙", "D": "丁"}),
        ("A 甲\nB 乙\nD 丁", {"A": "甲", "B": "乙", "D": "丁"}),
        ("A 甲\nB. 乙\n\nＣ．丙 1\n续行", {"A": "甲", "B": "乙", "C": "丙 1\n续行"}),
        (" Ａ 甲 \r\nＢ 乙", {"A": "甲", "B": "乙"}),
    ],
)
def test_option_lists(tmp_path, cell, options):
    assert load("cmexam", cmexam(tmp_path / "test.csv", [" 问 ", cell, "B", ""])).questions[0].options == options


def test_unknown_answers_are_skipped_and_counted(tmp_path):
    rows = [[f"问{index}", "A 甲\nB 乙", answer, ""] for index, answer in enumerate(["A", "nan", " ", "B"])]
    benchmark = load("cmexam", cmexam(tmp_path / "test.csv", *rows))
    assert [question.index for question in benchmark.questions] == [0, 3]
    assert benchmark.reasons == tuple(f"{tmp_path / 'test.csv'}, line {line}: no known answer" for line in (4, 6))


def test_annotations_are_categories(tmp_path):
    header = ("id", "Question", "Options", "Answer", "Explanation", "Medical Discipline", "Difficulty")
    rows = [
        ["7", "问一", "A 甲\nB 乙", "A", "", "中医学", "3"],
        ["8", "问二", "A 甲\nB 乙", "AB", "", "中医学", "nan"],
        ["9", "问三", "A 甲\nB 乙", "B", "", "", "3"],
    ]
    questions = load("cmexam", cmexam(tmp_path / "test.csv", *rows, header=header)).questions
    assert [question.categories for question in questions] == [
        ("single", "Medical Discipline=中医学", "Difficulty=3"),
        ("multiple", "Medical Discipline=中医学"),
        ("single", "Difficulty=3"),
    ]


def test_own_categories(tmp_path):
    folder = mmlu(mmlu(mmlu(tmp_path, ROW), ROW, subject="my_topic"), ROW, subject="virology")
    assert [question.categories for question in load("mmlu", folder).questions] == [
        ("other", "health"),
        (),
        ("other", "health"),
    ]
    write(folder / "categories.csv", ["subject", "category"], ["my_topic", "mine"], ["my_topic", "x"], ["anatomy", "x"])
    assert [question.categories for question in load("mmlu", folder).questions] == [
        ("x",),
        ("mine", "x"),
        ("other", "health"),
    ]


# Refused


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([*ROW[:5], "E"], "answer"),
        ([*ROW[:5], "AB"], "one right option"),
        ([*ROW[:5], "1"], "answer"),
        (["  ", *ROW[1:]], "question is blank"),
        ([*ROW[:2], "", *ROW[3:]], "option B is blank"),
        (ROW[:5], "5 cells"),
        ([*ROW, "B"], "7 cells"),
    ],
)
def test_malformed_mmlu_rows(tmp_path, row, reason):
    with pytest.raises(UserError, match=f"anatomy_test.csv, line 2: .*{reason}"):
        load("mmlu", mmlu(tmp_path, ROW, row, ROW))


@pytest.mark.parametrize(
    ("options", "answer", "reason"),
    [
        ("甲\nB 乙", "B", "letter"),
        ("B 乙\nA 甲", "A", "after"),
        ("A 甲\nA 乙", "A", "after"),
        ("A 甲\nB ", "A", "option B is blank"),
        ("A 甲", "A", "only one option"),
        ("nan", "A", "letter"),
        ("", "A", "letter|no options"),
        ("A 甲\nB 乙", "C", "answer 'C'"),
        ("A 甲\nB 乙", "AAB", "twice"),
        ("\n".join(f"{letter} 甲" for letter in "ABCDEFGHIJK"), "A", "11 options have too many sets"),
    ],
)
def test_malformed_cmexam_rows(tmp_path, options, answer, reason):
    file = cmexam(tmp_path / "test.csv", ["问", "A 甲\nB 乙", "A", ""], ["问", options, answer, ""])
    with pytest.raises(UserError, match=f"test.csv, line 4: .*({reason})"):
        load("cmexam", file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'Question,Options,Answer\n"open,A 1,A\nx,y,z\n', "line 2: .*quotes"),
        ("Question,Options,Answer\n问,A 甲,A\n".encode("gb18030"), "line 2: not UTF-8"),
        (b"Question,Options\nq,A 1\n", "lacks the columns Answer; it has Question, Options"),
        (b"Question,Options,Answer\nq,A 1,A,extra\n", "line 2: 4 cells"),
        (b"Question,Answer,Options,Answer\nq,A,A 1,A\n", "two columns Answer"),
        (b"Question,Options,Answer\n", "no questions"),
        (b"", "is empty"),
    ],
)
def test_malformed_files(tmp_path, content, reason):
    file = tmp_path / "test.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        load("cmexam", file)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file_of_a_folder_is_not_passed_over(tmp_path, content):
    """Else a subject would be missing without a word."""
    folder = mmlu(tmp_path, ROW)
    (folder / "test" / "virology_test.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="the file of virology holds no questions"):
        load("mmlu", folder)


def test_one_row_in_another_encoding(tmp_path):
    file = cmexam(tmp_path / "test.csv", ["问", "A 甲\nB 乙", "A", ""])
    file.write_bytes(file.read_bytes() + '又,"A 甲\nB 乙",A,\n'.encode("gb18030"))
    with pytest.raises(UserError, match=r"test\.csv, line 4: not UTF-8; convert the file"):
        load("cmexam", file)
    file.write_text("Question,Options,Answer\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"test\.csv, line 1: not UTF-8"):
        load("cmexam", file)


def test_missing_and_misnamed_files(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        load("cmexam", tmp_path / "test.csv")
    with pytest.raises(UserError, match=r"anatomy_test\.csv"):
        load("mmlu", tmp_path)
    with pytest.raises(UserError, match=r"other\.csv must be named <subject>_test\.csv"):
        write(mmlu(tmp_path, ROW) / "test" / "other.csv", ROW)
        load("mmlu", tmp_path)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([["anatomy", "x"]], "first line"),
        ([["subject", "category"], ["anatomi", "x"]], "line 2: there is no subject anatomi"),
        ([["subject", "category"], ["anatomy", "all"]], "line 2"),
        ([["subject", "category"], ["anatomy"]], "line 2"),
    ],
)
def test_malformed_categories(tmp_path, rows, reason):
    write(mmlu(tmp_path, ROW) / "categories.csv", *rows)
    with pytest.raises(UserError, match=f"categories.csv.*{reason}"):
        load("mmlu", tmp_path)


# Shots, samples, hub


def test_shots_are_the_first_rows_with_an_answer(tmp_path):
    dev = [[f"Q{index}", *ROW[1:5], answer] for index, answer in enumerate(["A", "", "B", "C"])]
    folder = mmlu(tmp_path, ROW, dev=dev)
    assert [shot.stem for shot in load("mmlu", folder, shots=2).shots["anatomy"]] == ["Q0", "Q2"]
    with pytest.raises(UserError, match=r"3 questions .* for anatomy, but `shots` asks for 4"):
        load("mmlu", folder, shots=4)


def test_cmexam_shots_come_from_another_file(tmp_path):
    test = cmexam(tmp_path / "test.csv", ["问", "A 甲\nB 乙", "A", ""])
    train = cmexam(tmp_path / "train.csv", *([f"训{index}", "A 甲\nB 乙", "A", ""] for index in range(3)))
    shots = load("cmexam", test, train, shots=2, shots_from="train.csv").shots
    assert [shot.stem for shot in shots["cmexam"]] == ["训0", "训1"]
    with pytest.raises(UserError, match="would show their answers"):
        load("cmexam", test, test, shots=1, shots_from="test.csv")


def test_sample_of_everything_and_its_hash(tmp_path):
    folder = mmlu(tmp_path, *([f"Q{index}", *ROW[1:]] for index in range(5)))
    assert len(load("mmlu", folder, questions=9).questions) == 5
    # printf 'anatomy\\nQ2' | sha256sum; the order must never change, or runs of different versions cannot be compared.
    assert [question.stem for question in load("mmlu", folder, questions=2).questions] == ["Q2", "Q3"]


def test_mmlu_of_the_hub(hub):
    import datasets

    columns = {"question": ["Q1", "Q2", "Q3"], "choices": [list("wxyz")] * 3, "answer": [1, 0, 3]}
    table = datasets.Dataset.from_dict({**columns, "subject": ["virology", "anatomy", "virology"]})
    for split in ("dev", "test"):
        table.to_parquet(hub / "all" / f"{split}.parquet")
    (hub / "README.md").write_text(
        "---\nconfigs:\n- config_name: all\n  data_files:\n  - {split: dev, path: all/dev.parquet}\n"
        "  - {split: test, path: all/test.parquet}\n---\n"
    )
    benchmark = load("mmlu", None, path=str(hub), shots=1)
    assert [(q.subject, q.index, q.stem, q.answer) for q in benchmark.questions] == [
        ("anatomy", 0, "Q2", "A"),
        ("virology", 0, "Q1", "B"),
        ("virology", 1, "Q3", "D"),
    ]
    assert benchmark.questions[0].options == dict(zip("ABCD", "wxyz", strict=True))
    assert benchmark.shots["virology"][0].stem == "Q1"


def test_cmmlu_of_the_hub(hub, monkeypatch):
    names = ("anatomy", "virology")
    layout = dataclasses.replace(EXAMS["cmmlu"].layout, subsets=names)
    monkeypatch.setitem(EXAMS, "cmmlu", dataclasses.replace(EXAMS["cmmlu"], layout=layout))
    configs = ""
    for subject in names:
        write(hub / f"{subject}.csv", ["", "Question", "A", "B", "C", "D", "Answer"], [0, *ROW])
        files = "".join(f"  - {{split: {split}, path: {subject}.csv}}\n" for split in ("dev", "test"))
        configs += f"- config_name: {subject}\n  data_files:\n{files}"
    (hub / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    benchmark = load("cmmlu", None, path=str(hub), shots=1)
    assert [(q.subject, q.answer) for q in benchmark.questions] == [("anatomy", "B"), ("virology", "B")]


def test_cmexam_of_the_hub(hub):
    import datasets

    pairs = [{"key": "A", "value": "甲"}, {"key": "B", "value": "乙"}]
    table = datasets.Dataset.from_dict({"Question": ["问一", "问二"], "Options": [pairs] * 2, "Answer": ["BA", None]})
    table.to_json(hub / "test.jsonl", force_ascii=False)
    table.to_json(hub / "train.jsonl", force_ascii=False)
    assert load("cmexam", None, path=str(hub), shots=1).shots["cmexam"][0].stem == "问一"
    benchmark = load("cmexam", None, path=str(hub))
    assert [(question.options, question.answer) for question in benchmark.questions] == [({"A": "甲", "B": "乙"}, "AB")]
    assert benchmark.reasons == (f"{hub} (split test), row 2: no known answer",)


def test_what_the_hub_lacks(tmp_path, hub):
    with pytest.raises(UserError, match=r"subset all, split test.*cannot be loaded"):
        load("mmlu", None, path=str(tmp_path / "nothing"))
    write(hub / "test.csv", ["question", "answer"], ["Q", "A"])
    with pytest.raises(UserError, match="lacks the columns Question, Options, Answer; it has question, answer"):
        load("cmexam", None, path=str(hub))


def test_the_built_in_world(tmp_path):
    from clmed.data import miniworld

    world = miniworld.folder("miniworld", cache=tmp_path)
    for kind in ("mmlu", "cmmlu"):
        benchmark = load(kind, world / kind, shots=2)
        assert {len(question.categories) for question in benchmark.questions} == {1}
        assert benchmark.skipped == 0 and benchmark.shots.keys() == {q.subject for q in benchmark.questions}
    exam = load("cmexam", world / "cmexam" / "synthetic_test.csv")
    assert {"single", "multiple"} == {category for question in exam.questions for category in question.categories}
