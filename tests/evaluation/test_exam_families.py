"""MedQA, MedMCQA, PubMedQA, C-Eval, ARC-Easy, PIQA and cases: each form in which they are found."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from clmed.errors import UserError
from clmed.evaluation.benchmarks.ceval import NAMES, SUBJECTS, categories
from clmed.evaluation.prompts import prompt
from tests.exam_files import jsonl, load, table


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that datasets.load_dataset takes like a hub id."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "hub"


def publish(hub: Path, subset: str = "default", **splits: list[dict[str, Any]]) -> None:
    """One more subset of the data set in `hub`, as the hub stores it: Parquet, and the list in README.md."""
    import datasets

    entries = []
    for split, rows in splits.items():
        datasets.Dataset.from_list(rows).to_parquet(hub / subset / f"{split}.parquet")
        entries.append(f"  - {{split: {split}, path: {subset}/{split}.parquet}}\n")
    readme = hub / "README.md"
    text = readme.read_text() if readme.exists() else "---\nconfigs:\n---\n"
    entry = f"- config_name: {subset}\n  data_files:\n{''.join(entries)}---\n"
    readme.write_text(text.removesuffix("---\n") + entry)


# MedQA

VIGNETTE = "A 23-year-old pregnant woman at 22 weeks gestation presents with burning upon urination. " * 3
USMLE = {
    "question": VIGNETTE + "Which of the following is the best treatment?",
    "answer": "Nitrofurantoin",
    "options": {"A": "Ampicillin", "B": "Ceftriaxone", "C": "Doxycycline", "D": "Nitrofurantoin"},
    "meta_info": "step2&3",
    "answer_idx": "D",
}
MAINLAND = {
    "question": "经调查证实出现医院感染流行时，医院应报告当地卫生行政部门的时间是（　　）。",
    "options": {"A": "2小时", "B": "4小时内", "C": "8小时内", "D": "12小时内", "E": "24小时内"},
    "answer": "24小时内",
    "meta_info": "卫生法规",
    "answer_idx": "E",
}


def test_medqa_of_its_authors(tmp_path):
    (asked,) = load("medqa", jsonl(tmp_path / "US" / "test.jsonl", USMLE)).questions
    assert (asked.answer, asked.options["D"]) == ("D", "Nitrofurantoin")
    assert asked.categories == ("meta_info=step2&3",)
    chinese = load("medqa", jsonl(tmp_path / "Mainland" / "test.jsonl", MAINLAND))
    assert list(chinese.questions[0].options) == list("ABCDE")
    assert prompt(chinese, chinese.questions[0], 0).context.endswith("E. 24小时内\n答案：")


def test_medqa_of_the_hub(hub):
    """A JSON object becomes a struct, in which questions of fewer options have nulls; other copies have lists."""
    four = {**USMLE, "options": {**USMLE["options"], "E": None}}
    five = {**four, "options": {**USMLE["options"], "E": "None"}, "answer_idx": "E"}
    publish(hub, train=[five, four], test=[four, five])
    first, second = load("medqa", None, path=str(hub), shots=2).questions
    assert list(first.options) == list("ABCD") and second.options["E"] == "None"
    pairs = [{"key": letter, "value": text} for letter, text in MAINLAND["options"].items()]
    publish(hub, "zh", test=[{**MAINLAND, "options": pairs}])
    (asked,) = load("medqa", None, path=str(hub), subset="zh").questions
    assert asked.options == MAINLAND["options"]


# MedMCQA


def entrance(cop: Any, subject: str = "Anatomy", opd: Any = "fourth") -> dict[str, Any]:
    options = {"opa": "first", "opb": "second", "opc": "third", "opd": opd}
    return {"question": f"Which ({cop})?", **options, "cop": cop, "subject_name": subject, "choice_type": "multi"}


@pytest.mark.parametrize(
    ("answers", "letters"), [([4, 1, 2], "DAB"), ([0, 3, 1], "ADB"), ([3, -1, 0], "DA"), (["1", "4"], "AD")]
)
def test_medmcqa_counts_as_its_rows_say(tmp_path, answers, letters):
    benchmark = load("medmcqa", jsonl(tmp_path / "dev.json", *map(entrance, answers)))
    assert "".join(question.answer for question in benchmark.questions) == letters
    assert benchmark.skipped == len(answers) - len(letters)


def test_medmcqa_that_counts_in_neither_way(tmp_path):
    with pytest.raises(UserError, match=r"dev.jsonl, line 1: the answer '1' may be meant as index or as number"):
        load("medmcqa", jsonl(tmp_path / "dev.jsonl", entrance(1), entrance(2)))
    with pytest.raises(UserError, match=r"dev.jsonl, line 3: the answer '5' is no option: those count from 1 to 4"):
        load("medmcqa", jsonl(tmp_path / "dev.jsonl", entrance(4), entrance(1), entrance(5)))
    with pytest.raises(UserError, match=r"line 2: the answer '4' is no option: those count from 1 to 3"):
        load("medmcqa", jsonl(tmp_path / "dev.jsonl", entrance(4), entrance(4, opd=None)))


def test_medmcqa_of_the_hub(hub):
    publish(hub, train=[entrance(n % 4, s) for n in range(4) for s in ("Anatomy", "Skin")], validation=[
        entrance(0), entrance(3, "Skin"), entrance(1)])  # fmt: skip
    benchmark = load("medmcqa", None, path=str(hub), shots=2)
    assert [(q.subject, q.answer) for q in benchmark.questions] == [("Anatomy", "A"), ("Anatomy", "B"), ("Skin", "D")]
    assert [shot.answer for shot in benchmark.shots["Skin"]] == ["A", "B"]


# PubMedQA


def test_pubmedqa_is_read_whole(real_data):
    folder = real_data / "medical" / "pubmedqa"
    benchmark = load("pubmedqa", folder, shots=2)
    truth = json.loads((folder / "test_ground_truth.json").read_text())
    named = {"A": "yes", "B": "no", "C": "maybe"}
    assert len(benchmark.questions) == 500 and benchmark.skipped == 0
    assert Counter(named[q.answer] for q in benchmark.questions) == Counter(truth.values())
    records = json.loads((folder / "ori_pqal.json").read_text())
    of_question = {record["QUESTION"].strip(): key for key, record in records.items()}
    for question in benchmark.questions:
        key = of_question[question.stem]
        assert truth[key] == named[question.answer] and records[key]["CONTEXTS"][0].strip() in question.context
    assert all(of_question[shot.stem] not in truth for shot in benchmark.shots["pubmedqa"])
    asked = prompt(benchmark, benchmark.questions[0], 0)
    assert asked.continuations == (" yes", " no", " maybe")
    assert re.fullmatch(r"Abstract: (.+\n)+Question: .+\nAnswer:", asked.context)
    conclusion = records[of_question[benchmark.questions[0].stem]]["LONG_ANSWER"]
    assert conclusion not in asked.context
    assert len(load("pubmedqa", folder / "ori_pqal.json").questions) == 1000


def test_pubmedqa_of_the_hub(hub):
    row = {"question": "Does it?", "context": {"contexts": ["It was tried.", "It did."]}, "final_decision": "yes"}
    publish(hub, "pqa_labeled", train=[row, {**row, "final_decision": "maybe"}])
    first, second = load("pubmedqa", None, path=str(hub)).questions
    assert (first.context, first.answer, second.answer) == ("It was tried.\nIt did.", "A", "C")
    publish(hub, "other", train=[{**row, "final_decision": "perhaps"}])
    with pytest.raises(UserError, match=r"split train\), row 1: the answer 'perhaps' is none of yes, no and maybe"):
        load("pubmedqa", None, path=str(hub), subset="other")


@pytest.mark.parametrize(
    ("questions", "test", "reason"),
    [
        ("[]", "{}", "must map PubMed ids"),
        ("{", "{}", "is no JSON"),
        ('{"1": {"QUESTION": "Does it?"}}', '{"1": "yes"}', "record 1 lacks QUESTION, CONTEXTS or final_decision"),
        ("{}", '{"7": "no"}', r"test_ground_truth\.json names 7, which is not in"),
    ],
)
def test_pubmedqa_that_is_damaged(tmp_path, questions, test, reason):
    (tmp_path / "ori_pqal.json").write_text(questions)
    (tmp_path / "test_ground_truth.json").write_text(test)
    with pytest.raises(UserError, match=reason):
        load("pubmedqa", tmp_path)


# C-Eval

HEADER = ["id", "question", "A", "B", "C", "D", "answer", "explanation"]
ROW = [0, "下列属于局域网的是____", "星型", "环型", "总线型", "网状", "B", ""]


def test_ceval_of_its_authors(tmp_path):
    for subject, answer in (("computer_network", "B"), ("physician", "C")):
        row = [*ROW[:6], answer]
        table(tmp_path / "val" / f"{subject}_val.csv", HEADER[:7], row)
        table(tmp_path / "dev" / f"{subject}_dev.csv", HEADER, [*row, "因为"], ROW)
        table(tmp_path / "test" / f"{subject}_test.csv", HEADER[:6], row[:6])
    benchmark = load("ceval", tmp_path, shots=1)
    assert [(q.subject, q.answer) for q in benchmark.questions] == [("computer_network", "B"), ("physician", "C")]
    assert [q.categories for q in benchmark.questions] == [("STEM", "non-medical"), ("other", "medical")]
    item = "下列属于局域网的是____\nA. 星型\nB. 环型\nC. 总线型\nD. 网状\n答案："
    header = "以下是中国关于医师资格考试的单项选择题，请选出其中的正确答案。\n\n"
    assert prompt(benchmark, benchmark.questions[1], 1).context == f"{header}{item}C\n\n{item}"
    with pytest.raises(UserError, match=r"computer_network_test.csv lacks the columns answer"):
        load("ceval", tmp_path, split="test")


def test_ceval_of_the_hub(hub):
    rows = [dict(zip(HEADER, ROW, strict=True))]
    publish(hub, "law", dev=rows, val=rows * 2, test=[{**rows[0], "answer": ""}])
    benchmark = load("ceval", None, path=str(hub), subset="law", shots=1)
    assert [(q.subject, q.answer) for q in benchmark.questions] == [("law", "B")] * 2
    with pytest.raises(UserError, match="holds no questions with an answer"):
        load("ceval", None, path=str(hub), subset="law", split="test")


def test_ceval_has_52_subjects():
    assert len(SUBJECTS) == sum(map(len, NAMES.values())) == 52
    assert {name: len(subjects) for name, subjects in NAMES.items()} == {
        "STEM": 20,
        "social sciences": 10,
        "humanities": 11,
        "other": 11,
    }
    assert Counter(c for subject in SUBJECTS for c in categories(subject))["hard"] == 8


# ARC-Easy, PIQA


def test_general_abilities_are_read_whole(real_data):
    for name, file, count in (("arc_easy", "arc_easy/test.jsonl", 2376), ("piqa", "piqa/validation.jsonl", 1838)):
        path = real_data / "general" / file
        benchmark = load(name, path)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(benchmark.questions) == len(lines) == count
        for question, line in zip(benchmark.questions, lines, strict=True):
            assert list(question.options.values()) == [text.strip() for text in line["choices"]]
            assert question.options[question.answer] == line["choices"][line["answer"]].strip()
        asked = prompt(benchmark, benchmark.questions[0], 0)
        assert asked.context == f"Question: {lines[0]['question'].strip()}\nAnswer:"
        assert asked.continuations[0] == f" {lines[0]['choices'][0].strip()}"


def test_arc_of_its_authors_and_of_the_hub(tmp_path, hub):
    choices = [{"text": "one", "label": "1"}, {"text": "two", "label": "2"}, {"text": "three", "label": "3"}]
    published = {"id": "M", "question": {"stem": "Which?", "choices": choices}, "answerKey": "3"}
    (asked,) = load("arc_easy", jsonl(tmp_path / "ARC-Easy-Test.jsonl", published)).questions
    assert (asked.stem, asked.options, asked.answer) == ("Which?", {"A": "one", "B": "two", "C": "three"}, "C")
    row = {"question": "Which?", "choices": {"text": ["one", "two"], "label": ["A", "B"]}, "answerKey": "B"}
    publish(hub, "ARC-Easy", train=[row], test=[row])
    (asked,) = load("arc_easy", None, path=str(hub), shots=1).questions
    assert (asked.options, asked.answer) == ({"A": "one", "B": "two"}, "B")
    wrong = {**published, "answerKey": "4"}
    with pytest.raises(UserError, match=r"line 1: the answer '4' is no label of the options 1, 2, 3"):
        load("arc_easy", jsonl(tmp_path / "wrong.jsonl", wrong))
    with pytest.raises(UserError, match=r"line 1: there are no choices"):
        load("arc_easy", jsonl(tmp_path / "wrong.jsonl", {"question": "Which?"}))


def test_piqa_of_its_authors_and_of_the_hub(tmp_path, hub):
    goal = {"goal": "To open it", "sol1": "pull.", "sol2": "push."}
    file = jsonl(tmp_path / "valid.jsonl", goal, goal)
    (tmp_path / "valid-labels.lst").write_text("1\n0\n")
    assert [question.answer for question in load("piqa", file).questions] == ["B", "A"]
    publish(hub, train=[{**goal, "label": 0}], validation=[{**goal, "label": 1}, {**goal, "label": -1}])
    benchmark = load("piqa", None, path=str(hub), shots=1)
    assert [question.answer for question in benchmark.questions] == ["B"] and benchmark.skipped == 1
    (tmp_path / "valid-labels.lst").write_text("1\n")
    with pytest.raises(UserError, match="holds 1 labels for the 2 questions"):
        load("piqa", file)


# Cases


def test_cases_of_cmexam(real_data):
    path = real_data / "cmexam" / "test.csv"
    whole = load("cmexam", path).questions
    benchmark = load("cases", path, of="cmexam")
    expected = [q for q in whole if len(q.stem) >= 60 and re.search("[0-9半]岁|月龄|日龄|新生儿", q.stem)]
    assert [q.stem for q in benchmark.questions] == [q.stem for q in expected] and 50 < len(expected) < 120
    assert benchmark.several
    longer = load("cases", path, of="cmexam", longer_than=100).questions
    assert 0 < len(longer) < len(expected) and all(len(q.stem) >= 100 for q in longer)


def test_cases_of_medqa(tmp_path):
    short = {**USMLE, "question": "A 3-day-old boy cries. Why?"}
    abstract = {**USMLE, "question": "Which drug of the following is the best one in general? " * 5}
    benchmark = load("cases", jsonl(tmp_path / "test.jsonl", short, USMLE, abstract))
    assert [q.index for q in benchmark.questions] == [1] and not benchmark.several
    with pytest.raises(UserError, match="no benchmark 'medqq' to take cases of; did you mean 'medqa'"):
        load("cases", tmp_path / "test.jsonl", of="medqq")
