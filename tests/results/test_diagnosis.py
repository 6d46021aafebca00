"""`clmed diagnose`: each signature on a run with that fault planted, none on a healthy one, and none from noise."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from clmed import validation
from clmed.config import dump
from clmed.errors import UserError
from clmed.results import diagnosis
from clmed.results.diagnosis.corpus import inadequate_corpus
from clmed.results.diagnosis.forgetting import forgetting
from clmed.results.diagnosis.record import Record
from clmed.results.diagnosis.shown import as_file
from clmed.results.rundir import RunDirectory
from clmed.results.runs import Run
from tests import planted
from tests.command import in_process

FAULTS = {
    "healthy": [],
    "corpus": ["stream.0.data=unasked_texts", "stream.0.tokens=30k"],
    "mismatch": ["stream.0.data=[asked_texts, asked_qa, senseless]"],
    "forgetting": ["strategy={}", "stream.0.optimizer.lr=6e-3", "stream.0.tokens=40k"],
    "language": [
        "stream.0.data=foreign_medical",
        "stream.0.tokens=20k",
        "evaluation.gain=[{perplexity: foreign_medical}]",
        "evaluation.retention=[{benchmark: mmlu, path: mmlu, scoring: text}, {perplexity: foreign_general}]",
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("planted")
        patch.setenv("CLMED_CACHE", str(folder / "cache"))
        planted.make_world(folder)
        yield folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Callable[[str], Path]:
    """The run with a fault, made when it is first asked for."""
    return cache(lambda fault: planted.run(folder, fault, *FAULTS[fault]))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(run: Callable[[str], Path], fault: str, folder: Path) -> None:
    findings = diagnosis.diagnose(run(fault))
    assert [finding.signature for finding in findings] == ([] if fault == "healthy" else [fault]), findings
    assert diagnosis.blind_spots(run(fault)) == (
        ["corpus: no exam under evaluation.gain"] if fault == "language" else []
    )
    for finding in findings:
        file = folder / f"try-{fault}.yaml"
        file.write_text(as_file(run(fault), finding), encoding="utf-8")
        before, after = validation.load(run(fault) / "config.yaml"), validation.load(file)
        assert dump(after) != dump(before.model_copy(update={"name": after.name}))


def test_a_source_without_sense_is_named_and_left_out(run: Callable[[str], Path]) -> None:
    (finding,) = diagnosis.diagnose(run("mismatch"))
    assert "senseless" in finding.title and "asked" not in finding.title
    assert "no better on it than somebody who knows its words" in finding.meaning
    assert "It is not the language" in finding.meaning
    assert "- asked_texts" in finding.change and "senseless" not in finding.change


def test_what_was_forgotten_is_told_by_category(run: Callable[[str], Path]) -> None:
    (finding,) = diagnosis.diagnose(run("forgetting"))
    assert finding.title.startswith("Forgetting: mmlu lost ")
    assert any("point 0 to 1: mmlu: " in line for line in finding.evidence)
    at = next(n for n, line in enumerate(finding.evidence) if "turned from right to wrong, such as" in line)
    asked = RunDirectory(run("forgetting")).answers(0, "mmlu")["question"]
    assert all(line.split('"')[1] in asked for line in finding.evidence[at + 1 : at + 4])
    assert any("fell most between points 0 and 1, in learning" in line for line in finding.evidence)
    assert "replay:\n    ratio: 0.05" in finding.change  # the base's Chinese and the domain's are one language


def test_the_language_is_learnt_before_the_domain(run: Callable[[str], Path]) -> None:
    (finding,) = diagnosis.diagnose(run("language"))
    assert "Hangul" in finding.title and "The tokenizer says little" in finding.meaning
    assert "name: language\n  data:\n  - foreign_general" in finding.change


def test_the_command_tells_evidence_and_the_change(
    run: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = str(run("corpus"))
    capfd.readouterr()
    done = in_process(capfd, "diagnose", corpus)
    assert done.code == 0, done.err
    assert "The corpus is learnt, but medical hardly rises" in done.out
    told = " ".join(done.out.split())  # as wide as the terminal is
    assert "point 0 to 1: medical: " in told and "nats a token, before training to the last steps" in told
    assert f"extends: {run('corpus')}/config.yaml" in done.out
    healthy = str(run("healthy"))  # made here where this test is alone: what it says then is not the command's
    capfd.readouterr()
    assert in_process(capfd, "diagnose", healthy).out == "Nothing was found.\n"
    in_process(capfd, "diagnose", str(run("corpus").parent / "nowhere")).is_mistake("there is no such folder")


# ---------------------------------------------------------------------- rules, on runs that are written by hand


def written(path: Path, folder: Path, *, base: Sequence[bool], now: Sequence[bool], role: str) -> Path:
    """A run with one exam, whose answers at the base and at the end are given, and whose loss fell from 3 to 1."""
    run = RunDirectory.create(path, with_one_exam(folder, role), {})
    known = {"tokens": 100, "bytes": 300, "scripts": {"CJK": 1.0}, "context_free": 4.0}
    sample = {"nats": [30.0, 31.0, 29.0, 30.0], "supervised": [10] * 4}
    run.set_sources({"asked_texts": {**known, **sample}, "english_texts": {**known, **sample}})
    steps = [3 - 2 * step / 99 for step in range(100)]
    common = {"experience": "learning", "tokens": 1000}
    run.add_trainings({**common, "step": i + 1, "loss/asked_texts": x} for i, x in enumerate(steps))
    for point, answers in enumerate((base, now)):
        place: dict[str, Any] = {"point": point, "experience": "learning" if point else "base", "final": True}
        row = {"role": role, "benchmark": "mmlu", "shots": 0, "metric": "accuracy"}
        score = {"score": sum(answers) / len(answers), "questions": len(answers), "tokens": 1000 * point, "seconds": 1}
        run.add_results({**place, **row, **score, "category": category} for category in ("all", "c", "d"))
        columns = {
            "correct": answers,
            "subject": ["s"] * len(answers),
            "categories": [["c"], ["d"]] * (len(answers) // 2),
        }
        run.write_answers(point, "mmlu", columns)
    return path


@cache
def with_one_exam(folder: Path, role: str) -> str:
    """The configuration."""
    other = "retention" if role == "gain" else "gain"
    exam = "[{benchmark: mmlu, path: mmlu, scoring: text}]"
    return dump(validation.load(folder / "small.yaml", [f"evaluation.{role}={exam}", f"evaluation.{other}=[]"]))


def record(path: Path) -> Record:
    return Record(run=Run(path=path))


def answers(questions: int, right: float, seed: int) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < right for _ in range(questions)]


def test_of_a_small_exam_nothing_is_said(tmp_path: Path, folder: Path) -> None:
    """A flat exam is told from one that rises by its interval, not by its value."""
    flat = {"base": [n % 4 == 0 for n in range(800)], "now": [n % 4 == 1 for n in range(800)]}
    assert inadequate_corpus(record(written(tmp_path / "large", folder, role="gain", **flat)))
    few = {key: values[:40] for key, values in flat.items()}
    assert inadequate_corpus(record(written(tmp_path / "small", folder, role="gain", **few))) is None
    risen = {**flat, "now": [n % 4 == 1 or n % 12 == 0 for n in range(800)]}
    assert inadequate_corpus(record(written(tmp_path / "risen", folder, role="gain", **risen))) is None


def test_a_fall_within_the_noise_is_not_forgetting(tmp_path: Path, folder: Path) -> None:
    base = answers(100, 0.8, 1)
    some = [right and number >= 5 for number, right in enumerate(base)]  # about 4 points: may be chance
    assert forgetting(record(written(tmp_path / "few", folder, role="retention", base=base, now=some))) is None
    many = [right and number >= 20 for number, right in enumerate(base)]
    found = forgetting(record(written(tmp_path / "many", folder, role="retention", base=base, now=many)))
    assert found is not None and "mmlu, c: " in found.evidence[1]


@pytest.mark.parametrize(("dearer", "told"), [(0.3, False), (0.8, True)])
def test_text_that_costs_far_more_is_forgetting_whatever_an_exam_says(
    tmp_path: Path, folder: Path, dearer: float, told: bool
) -> None:
    same = answers(100, 0.8, 1)
    path = written(tmp_path / "run", folder, role="retention", base=same, now=same)
    run, nats = RunDirectory.open(path), [30.0, 31.0, 29.0, 30.0] * 5
    for point, more in enumerate((0.0, 10 * dearer)):
        place: dict[str, Any] = {"point": point, "experience": "learning" if point else "base", "final": True}
        row = {"role": "retention", "benchmark": "general", "category": "all", "metric": "nats_per_token", "shots": 0}
        score = {"score": 3 + more / 10, "questions": 20, "tokens": 1000 * point, "seconds": 1}
        run.add_results([{**place, **row, **score}])
        run.write_answers(point, "general", {"nats": [each + more for each in nats], "tokens": [10] * 20})
    found = forgetting(record(path))
    assert (found is not None) == told
    assert found is None or found.title == "Forgetting: general lost 0.80 nats a token"


def test_false_alarms_are_as_rare_as_intervals_promise(tmp_path: Path, folder: Path) -> None:
    """Two samples of one accuracy: nothing was lost, and in 40 runs forgetting is told of 1 or 2, not of more."""
    runs = [
        written(tmp_path / str(n), folder, role="retention", base=answers(200, 0.6, n), now=answers(200, 0.6, n + 100))
        for n in range(40)
    ]
    assert sum(forgetting(record(path)) is not None for path in runs) <= 2


def test_what_is_not_recorded_is_told(tmp_path: Path, folder: Path) -> None:
    config = validation.load(folder / "small.yaml", ["evaluation.gain=[]", "evaluation.retention=[]"])
    run = RunDirectory.create(tmp_path / "new", dump(config), {})
    assert diagnosis.diagnose(run.path) == []
    assert len(diagnosis.blind_spots(run.path)) == 2


def test_answers_that_were_not_kept_are_told(tmp_path: Path, folder: Path) -> None:
    path = written(tmp_path / "run", folder, role="retention", base=[True] * 100, now=[False] * 100)
    shutil.rmtree(path / "answers")
    assert diagnosis.diagnose(path) == []
    assert "forgetting: no answers of mmlu were kept" in diagnosis.blind_spots(path)
    assert "corpus: no exam under evaluation.gain" in diagnosis.blind_spots(path)


def test_a_damaged_configuration_is_told(tmp_path: Path, folder: Path) -> None:
    answered = [True, False] * 200
    path = written(tmp_path / "run", folder, role="gain", base=answered, now=answered)
    (path / "config.yaml").write_text("name: x\nseed: [\n")
    with pytest.raises(UserError, match=r"config\.yaml"):
        diagnosis.diagnose(path)
    (path / "config.yaml").unlink()
    with pytest.raises(UserError, match="has not begun"):
        diagnosis.diagnose(path)
