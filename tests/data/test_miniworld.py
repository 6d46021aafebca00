"""The built-in world: the same for a seed, true to its texts, and fair to the facts that its exams hold out."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clmed.data import miniworld
from clmed.data.miniworld import SHOTS, Fact, World
from clmed.data.miniworld_words import CHINESE, ENGLISH, MEDICAL
from clmed.data.templates import join_answers
from clmed.errors import UserError

GROUPS = ("covered", "uncovered")
EXAMS = {"english": "mmlu", "chinese": "cmmlu"}


@pytest.fixture(scope="module")
def world() -> World:
    return miniworld.make(0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniworld.folder("miniworld", tmp_path_factory.mktemp("cache"))


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def general_exam(files: Path, language: str, split: str, group: str) -> list[tuple[str, dict[str, str], str]]:
    """(question, options, letter) of every subject."""
    exam, rows = EXAMS[language], []
    for path in sorted((files / exam / split).glob(f"*_{group}{f'_{split}' if exam == 'mmlu' else ''}.csv")):
        rows += table(path) if exam == "mmlu" else [row[1:] for row in table(path)[1:]]
    return [(row[0], dict(zip("ABCD", row[1:5], strict=True)), row[5]) for row in rows]


def medical_exam(files: Path, part: str) -> list[tuple[str, dict[str, str], str, str]]:
    rows = table(files / "cmexam" / f"synthetic_{part}.csv")[1:]
    return [(q, {line[0]: line[2:] for line in options.split("\n")}, a, e) for q, options, a, e in rows]


def facts_of(question: str, facts: list[Fact]) -> list[Fact]:
    return [f for f in facts if question in {wording.format(e=f.thing) for wording in f.examined}]


def digest(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    content = [f"{path.relative_to(folder)}\n".encode() + path.read_bytes() for path in paths]
    return hashlib.sha256(b"".join(content)).hexdigest()


def test_a_seed_gives_the_same_bytes_in_another_process(files: Path, tmp_path: Path) -> None:
    code = (
        "from clmed.data import miniworld; import sys, pathlib; print(miniworld.folder(sys.argv[1], pathlib.Path('.')))"
    )
    made = {}
    for name in ("miniworld", "miniworld-7"):
        environment = {**os.environ, "PYTHONHASHSEED": "5", "LC_ALL": "C"}
        command = [sys.executable, "-c", code, name]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        made[name] = digest(tmp_path / run.stdout.strip())
    assert made["miniworld"] == digest(files)
    assert made["miniworld-7"] != made["miniworld"]


def test_it_is_made_without_torch_and_once(tmp_path: Path) -> None:
    code = "import sys, clmed.data.miniworld; sys.exit(any(m in sys.modules for m in ('torch', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    first = miniworld.folder("miniworld-3", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert miniworld.folder("miniworld-3", tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == times


@pytest.mark.parametrize(
    "name", ["miniworld-", "miniworld-a", "miniworld--1", "miniworld-1.5", "miniworld-²", "miniworld-7\n"]
)
def test_a_malformed_name_is_refused(name: str, tmp_path: Path) -> None:
    assert miniworld.is_miniworld(name)
    with pytest.raises(UserError, match="miniworld-7"):
        miniworld.folder(name, tmp_path)


@pytest.mark.parametrize("name", [".", "./miniworld", "data/miniworld-7", "miniworlds"])
def test_a_folder_is_no_miniworld(name: str) -> None:
    assert not miniworld.is_miniworld(name)


def test_wordings_and_values_fit_their_use() -> None:
    for kind in (*ENGLISH, *CHINESE, *MEDICAL):
        for relation in kind.relations:
            assert len(set(relation.values)) == len(relation.values) >= 6
            for value in relation.values:
                assert not any(other.startswith(value) for other in relation.values if other != value)
            assert all("{e}" in wording and "{v}" in wording for wording in relation.statements)
            for wording in (*relation.questions, *relation.exam):
                assert "{e}" in wording and "{v}" not in wording
            assert len(set(relation.questions)) > 3


@pytest.mark.parametrize("language", EXAMS)
def test_the_groups_share_no_thing_and_are_alike(world: World, files: Path, language: str) -> None:
    covered, uncovered = (world.general[language, group] for group in GROUPS)
    assert not {fact.thing for fact in covered} & {fact.thing for fact in uncovered}
    assert [f.relation for f in covered] == [f.relation for f in uncovered]
    for group, others in zip(GROUPS, (uncovered, covered), strict=True):
        corpus = "".join(
            (files / "general" / f"synthetic_{language}_{group}_{form}.jsonl").read_text(encoding="utf-8")
            for form in ("texts", "qa")
        )
        assert not any(f"{fact.thing} " in corpus or f"{fact.thing}?" in corpus for fact in others)
        assert all(statement in corpus for fact in world.general[language, group] for statement in fact.statements())
    listed = dict(table(files / EXAMS[language] / "categories.csv")[1:])
    assert set(listed.values()) == set(GROUPS) and len(listed) == 8
    assert all(subject.endswith(f"_{category}") for subject, category in listed.items())


@pytest.mark.parametrize("language", EXAMS)
@pytest.mark.parametrize("group", GROUPS)
def test_general_exams_ask_known_facts_in_new_wordings(world: World, files: Path, language: str, group: str) -> None:
    facts = world.general[language, group]
    pairs = lines(files / "general" / f"synthetic_{language}_{group}_qa.jsonl")
    asked: dict[str, str] = {pair["question"]: pair["answer"] for pair in pairs}
    dev, test = (general_exam(files, language, split, group) for split in ("dev", "test"))
    assert len(dev) == 4 * SHOTS and len(dev) + len(test) == len(facts)
    seen = set()
    for question, options, letter in dev + test:
        (fact,) = facts_of(question, facts)
        seen.add((fact.thing, fact.relation))
        assert options[letter] == fact.answer
        assert len(set(options.values())) == 4 and set(options.values()) <= set(fact.relation.values)
        assert question not in asked
        # The same fact is asked in the other wordings, and this wording is asked of other facts.
        others = [wording for wording in fact.relation.questions if wording.format(e=fact.thing) != question]
        assert len(others) == len(fact.relation.questions) - 1
        assert all(asked[wording.format(e=fact.thing)] == fact.answer for wording in others)
        (wording,) = fact.examined
        assert any(wording.format(e=other.thing) in asked for other in facts if other.thing != fact.thing)
    assert len(seen) == len(facts)  # dev shots and test questions are about different facts


def test_medical_exams_hold_out_what_they_say(world: World, files: Path) -> None:
    facts = [fact for part in world.medical.values() for fact in part]
    texts = {record["text"] for record in lines(files / "medical" / "synthetic_medical_texts.jsonl")}
    pairs = {pair["question"]: pair["answer"] for pair in lines(files / "medical" / "synthetic_medical_qa.jsonl")}
    asked: dict[str, set[tuple[str, int]]] = {}
    for part in ("train", "val", "test"):
        asked[part] = set()
        for question, options, letters, explanation in medical_exam(files, part):
            (fact,) = facts_of(question, facts)
            asked[part].add((fact.thing, id(fact.relation)))
            assert list(options) == list("ABCDE") and len(set(options.values())) == 5
            assert letters == "".join(sorted(letters))
            assert join_answers([options[letter] for letter in letters]) == fact.answer
            assert set(options.values()) <= set(fact.relation.values)
            assert question not in pairs and question not in texts
            assert set(fact.statements()) <= texts
            assert any(explanation.startswith(statement) for statement in fact.statements())
    assert not asked["train"] & asked["test"] and not asked["train"] & asked["val"] and not asked["val"] & asked["test"]
    assert sum(map(len, asked.values())) == len(facts)
    train = {wording for f in world.medical["train"] for wording in f.examined}
    assert train >= {wording for f in world.medical["test"] for wording in f.examined}


@pytest.mark.parametrize("seed", range(5))
def test_the_exams_have_the_same_make_up_for_every_seed(seed: int, tmp_path: Path) -> None:
    files = miniworld.folder(f"miniworld-{seed}", tmp_path)
    answers = [letters for part in ("train", "val", "test") for _, _, letters, _ in medical_exam(files, part)]
    several = sum(len(letters) > 1 for letters in answers) / len(answers)
    assert 0.06 < several < 0.10
    assert 120 <= len(medical_exam(files, "test")) <= 250
    for language in EXAMS:
        tests = [question for group in GROUPS for question in general_exam(files, language, "test", group)]
        assert 120 <= len(tests) <= 250
        assert max(sum(letter == which for _, _, letter in tests) for which in "ABCD") < 0.4 * len(tests)


def test_the_files_look_like_the_published_ones(files: Path, real_data: Path) -> None:
    assert table(files / "cmexam" / "synthetic_test.csv")[0] == table(real_data / "cmexam" / "test.csv")[0]
    for split in ("dev", "test"):
        for exam, made, real in (
            ("mmlu", f"synthetic_nature_covered_{split}.csv", f"anatomy_{split}.csv"),
            ("cmmlu", "synthetic_nature_covered.csv", "anatomy.csv"),
        ):
            ours, theirs = table(files / exam / split / made), table(real_data / exam / split / real)
            assert {len(row) for row in ours} == {len(row) for row in theirs}
            assert exam == "mmlu" or ours[0] == theirs[0]


def test_every_file_says_that_it_is_synthetic(files: Path) -> None:
    names = {path.name for path in files.rglob("*.*")} - {"README.md", "categories.csv"}
    assert len(names) == 37 and all(name.startswith("synthetic_") for name in names)
    readme = (files / "README.md").read_text(encoding="utf-8")
    assert "synthetic" in readme and "held out" in readme
