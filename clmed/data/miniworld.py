"""The MiniWorld: a small closed world of invented facts, made from a seed, to try everything out within minutes.

It holds general facts in English, general facts in Chinese, and medical facts in Chinese. Each fact gives an invented
thing one value of a relation ("Karo lies on the river Lune") and appears as statements, as encyclopedia question-answer
pairs, and as an exam question in the format in which MMLU, CMMLU or CMExam are published; the wrong options are other
values of the same relation. So a model of less than a million parameters can know such a world, forget it and be asked
about it with the same code as a large one, as long as it is scored by the options' text.

*Covered and uncovered.* The general things are halved at random within each kind. The facts about one half are covered:
their texts may serve as replay, for a Fisher or a teacher. Those about the other half are uncovered: only the
pretraining of the base model reads them, so they show whether a method protects more than what it was shown again.

*Held out.* A general exam question asks its fact in a wording that occurs with other facts in the texts but never with
this one; the dev shots are about other facts than the test questions. Every medical fact is stated in the medical
texts, and its exam wordings are one that the texts use with other facts only and some that occur in exams only; the
train, val and test exams ask about different facts.
"""

import csv
import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clmed.data import miniworld_words, templates
from clmed.data.cache import build_once, cache_dir
from clmed.data.miniworld_words import CHINESE, ENGLISH, MEDICAL, Kind, Relation
from clmed.errors import UserError

SHOTS = 5  # dev questions per exam subject, as in MMLU and CMMLU
TWO_VALUES = 0.45  # share of facts with two values in a relation that allows them: 8 % of the medical exam
PARTS = {"test": 0.5, "val": 0.1}  # shares of the medical facts; the rest is asked in the train exam

README = """# MiniWorld {seed}: a synthetic world

Everything here is **synthetic**: made by `clmed.data.miniworld` from the seed {seed}, about things that do not exist.
Nothing in it is medical knowledge, and no score on it says anything about a real exam.

| path | what |
|---|---|
| `general/synthetic_<language>_<group>_texts.jsonl` | statements of the general facts, `{{"text"}}` |
| `general/synthetic_<language>_<group>_qa.jsonl` | the same facts as questions, `{{"question", "answer"}}` |
| `medical/synthetic_medical_texts.jsonl`, `..._qa.jsonl` | statements and questions of all medical facts |
| `mmlu/{{dev,test}}/synthetic_<subject>_<group>_{{dev,test}}.csv` | exams on the English facts, in MMLU's format |
| `cmmlu/{{dev,test}}/synthetic_<subject>_<group>.csv` | exams on the Chinese facts, in CMMLU's format |
| `mmlu/categories.csv`, `cmmlu/categories.csv` | the group of each subject |
| `cmexam/synthetic_{{train,val,test}}.csv` | exams on the medical facts, in CMExam's format |

The group is `covered` (the texts may be used for replay, a Fisher or a teacher) or `uncovered` (only the base model's
pretraining reads the texts): a random half of the things of each kind.

What is held out: an exam asks each fact in wordings that never occur with this fact in the texts or question-answer
pairs (some occur with other facts there, the others in exams only). Dev and test questions are about different facts.
Every medical fact is stated in the medical texts, but no fact asked in the `test` or `val` exam is asked in `train`.
"""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing's value (rarely two, in the table's order) of one relation, and the wordings that may ask for it."""

    subject: str
    thing: str
    relation: Relation
    values: tuple[str, ...]
    asked: tuple[str, ...]  # in the encyclopedia
    examined: tuple[str, ...]  # in exams

    @property
    def answer(self) -> str:
        return templates.join_answers(list(self.values))

    def statements(self) -> list[str]:
        return [statement.format(e=self.thing, v=self.answer) for statement in self.relation.statements]


@dataclass(frozen=True, kw_only=True)
class World:
    """The general facts by (language, group), and the medical facts by the part of the exam that asks them."""

    general: dict[tuple[str, str], list[Fact]]
    medical: dict[str, list[Fact]]


def is_miniworld(data_root: str) -> bool:
    """Whether a configuration's `data_root` names a MiniWorld rather than a folder."""
    return data_root == "miniworld" or data_root.startswith("miniworld-")


def folder(data_root: str, cache: Path | None = None) -> Path:
    """The files of the world `miniworld` (seed 0) or `miniworld-<seed>`, made on first use in `cache`.

    The folder's name holds a fingerprint of the generator, so that a change of the code is another world.
    """
    match = re.fullmatch(r"miniworld(?:-(\d+))?", data_root, flags=re.ASCII)
    if match is None:
        raise UserError(
            f"data_root: {data_root!r} is no MiniWorld; write 'miniworld', 'miniworld-7' for the world of seed 7, "
            f"or './{data_root}' for a folder of that name"
        )
    seed = int(match[1] or 0)
    return build_once(
        (cache or cache_dir()) / f"synthetic-miniworld-{seed}-{_fingerprint()}",
        lambda target: write(target, make(seed), seed),
    )


def make(seed: int) -> World:
    """Draw the facts: the same seed gives the same world on every machine."""
    general = {}
    for language, kinds in {"english": ENGLISH, "chinese": CHINESE}.items():
        rng = random.Random(f"{seed} {language}")
        covered, uncovered = [], []
        for kind, things in _names(kinds, rng):
            half = len(things) // 2
            covered += _facts(kind, things[:half], rng)
            uncovered += _facts(kind, things[half:], rng)
        general[language, "covered"], general[language, "uncovered"] = covered, uncovered
    rng = random.Random(f"{seed} medical")
    facts = [fact for kind, things in _names(MEDICAL, rng) for fact in _facts(kind, things, rng)]
    return World(general=general, medical=_medical_parts(facts, rng))


def write(target: Path, world: World, seed: int) -> None:
    """Write the world's files into the empty folder `target`."""
    rng = random.Random(f"{seed} files")
    for (language, group), facts in world.general.items():
        _write_corpus(target / "general" / f"synthetic_{language}_{group}", facts, rng)
        _write_general_exams(target / {"english": "mmlu", "chinese": "cmmlu"}[language], group, facts, rng)
    for benchmark in ("mmlu", "cmmlu"):
        stems = sorted(path.stem.removesuffix("_test") for path in (target / benchmark / "test").iterdir())
        rows = [[stem, stem.rpartition("_")[2]] for stem in stems]
        _write_csv(target / benchmark / "categories.csv", [["subject", "category"], *rows])
    _write_corpus(target / "medical" / "synthetic_medical", [f for part in world.medical.values() for f in part], rng)
    for part, facts in world.medical.items():
        _write_medical_exam(target / "cmexam" / f"synthetic_{part}.csv", part, facts, rng)
    (target / "README.md").write_text(README.format(seed=seed), encoding="utf-8")


def _fingerprint() -> str:
    sources = [Path(file) for file in (__file__, miniworld_words.__file__, templates.__file__)]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _names(kinds: Sequence[Kind], rng: random.Random) -> Iterable[tuple[Kind, list[str]]]:
    """The things of each kind; no two kinds share a name (without its suffix)."""
    used: set[str] = set()
    for kind in kinds:
        free = [name for first in kind.first for second in kind.second if (name := first + second) not in used]
        names = rng.sample(free, kind.things)
        used.update(names)
        yield kind, [name + kind.suffix for name in names]


def _facts(kind: Kind, things: Sequence[str], rng: random.Random) -> list[Fact]:
    facts = []
    for relation in kind.relations:
        two = set(rng.sample(things, round(TWO_VALUES * len(things)))) if relation.several else set()
        for thing in things:
            values = rng.sample(relation.values, 2 if thing in two else 1)
            held_out = rng.choice(relation.questions)
            facts.append(
                Fact(
                    subject=kind.subject,
                    thing=thing,
                    relation=relation,
                    values=tuple(sorted(values, key=relation.values.index)),
                    asked=tuple(question for question in relation.questions if question != held_out),
                    examined=(held_out, *relation.exam),
                )
            )
    return facts


def _medical_parts(facts: Sequence[Fact], rng: random.Random) -> dict[str, list[Fact]]:
    """Split the facts into the exam's parts, alike within each relation and number of values."""
    strata: dict[tuple[Relation, int], list[Fact]] = {}
    for fact in facts:
        strata.setdefault((fact.relation, len(fact.values)), []).append(fact)
    parts: dict[str, list[Fact]] = {"train": [], "val": [], "test": []}
    for stratum in strata.values():
        rng.shuffle(stratum)
        test = round(PARTS["test"] * len(stratum))
        val = test + round(PARTS["val"] * len(stratum))
        parts["test"] += stratum[:test]
        parts["val"] += stratum[test:val]
        parts["train"] += stratum[val:]
    return parts


def _options(fact: Fact, count: int, rng: random.Random) -> dict[str, str]:
    """`count` options by letter in random order, but two right ones in the order in which the texts join them."""
    wrong = rng.sample([value for value in fact.relation.values if value not in fact.values], count - len(fact.values))
    right = sorted(rng.sample(range(count), len(fact.values)))
    options = dict(zip(right, fact.values, strict=True))
    rest = iter(wrong)
    return {letter: options[i] if i in options else next(rest) for i, letter in enumerate("ABCDE"[:count])}


def _letters(fact: Fact, options: dict[str, str]) -> str:
    return "".join(letter for letter, text in options.items() if text in fact.values)


def _write_corpus(stem: Path, facts: Sequence[Fact], rng: random.Random) -> None:
    """`<stem>_texts.jsonl` and `<stem>_qa.jsonl`, in random order."""
    texts = [{"text": statement} for fact in facts for statement in fact.statements()]
    pairs = [
        {"question": question.format(e=fact.thing), "answer": fact.answer} for fact in facts for question in fact.asked
    ]
    for name, records in (("texts", texts), ("qa", pairs)):
        rng.shuffle(records)
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        path = stem.with_name(f"{stem.name}_{name}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines, encoding="utf-8", newline="\n")


def _write_general_exams(exam: Path, group: str, facts: Sequence[Fact], rng: random.Random) -> None:
    """One dev and one test file per subject, as MMLU (no header, `_dev`/`_test` in the name) or CMMLU publish them."""
    for subject in dict.fromkeys(fact.subject for fact in facts):
        chosen = [fact for fact in facts if fact.subject == subject]
        rng.shuffle(chosen)
        for split, part in (("dev", chosen[:SHOTS]), ("test", chosen[SHOTS:])):
            rows: list[list[object]] = []
            for fact in part:
                options = _options(fact, 4, rng)
                question = fact.examined[0].format(e=fact.thing)
                rows.append([question, *options.values(), _letters(fact, options)])
            name = f"synthetic_{subject}_{group}"
            if exam.name == "mmlu":
                _write_csv(exam / split / f"{name}_{split}.csv", rows)
            else:
                header = ["", "Question", "A", "B", "C", "D", "Answer"]
                _write_csv(exam / split / f"{name}.csv", [header, *([i, *row] for i, row in enumerate(rows))])


def _write_medical_exam(path: Path, part: str, facts: Sequence[Fact], rng: random.Random) -> None:
    """CMExam's columns; the train exam asks each fact in every exam wording, the others in one."""
    rows = []
    for fact in facts:
        for question in fact.examined if part == "train" else [rng.choice(fact.examined)]:
            options = _options(fact, 5, rng)
            listed = "\n".join(f"{letter} {text}" for letter, text in options.items())
            explanation = f"{rng.choice(fact.statements())}其他选项与{fact.thing}无关。"
            rows.append([question.format(e=fact.thing), listed, _letters(fact, options), explanation])
    rng.shuffle(rows)
    _write_csv(path, [["Question", "Options", "Answer", "Explanation"], *rows])


def _write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
