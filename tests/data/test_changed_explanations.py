"""Explanations of other questions, and cut ones: against a loop that is written out, and what must not change."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from clmed.config import SourceConfig
from clmed.data.rows import Part, document_texts, source_fingerprint

PARTS: tuple[Part, ...] = ("train", "fisher", "heldout")
LABEL = "Explanation: "


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 questions; a sixth have no explanation."""
    path = tmp_path_factory.mktemp("exam") / "exam.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Question", "Options", "Answer", "Explanation"])
        for number in range(120):
            explanation = "" if number % 6 == 0 else f"why {number} " + "x" * (number % 7)
            writer.writerow([f"question {number}", "A one\nB other", "AB"[number % 2], explanation])
    return path


def told(exam: Path, part: Part, **changes: object) -> list[tuple[str, str]]:
    """(question with its answer, explanation) of every document of a part, in order."""
    settings = {"path": "given", "format": "exam", "target": "answer_then_explanation", "fisher": 0.2, "heldout": 0.2}
    source = SourceConfig.model_validate(settings | changes)
    found = []
    for text in document_texts("exam", source, exam, part):
        asked, _, explanation = text.partition(LABEL)
        found.append((asked, explanation.removesuffix("\n")))
    return found


@pytest.mark.parametrize("part", PARTS)
def test_explanations_of_other_questions(exam: Path, part: Part) -> None:
    own, other = told(exam, part), told(exam, part, shuffle_explanations=3)
    assert len(own) > 10 and [asked for asked, _ in own] == [asked for asked, _ in other]
    before, after = [why for _, why in own], [why for _, why in other]
    assert Counter(before) == Counter(after)
    assert all((one == two) is (not one) for one, two in zip(before, after, strict=True))
    explained = [index for index, why in enumerate(before) if why]
    round_of_all = list(np.random.default_rng(3).permutation(explained))
    expected = list(before)
    for place, index in enumerate(round_of_all):
        expected[index] = before[round_of_all[place - 1]]
    assert after == expected
    assert told(exam, part, shuffle_explanations=3) == other != told(exam, part, shuffle_explanations=4)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.999])
def test_the_first_part_of_each_explanation(exam: Path, share: float) -> None:
    def cut(why: str) -> str:
        return next((why[:kept] for kept in range(len(why) + 1) if kept >= share * len(why)), "")

    own, shorter = told(exam, "train"), told(exam, "train", explanation_share=share)
    assert shorter == [(asked, cut(why).rstrip()) for asked, why in own]
    both = told(exam, "train", explanation_share=share, shuffle_explanations=0)
    whole = told(exam, "train", shuffle_explanations=0)
    assert both == [(asked, cut(why).rstrip()) for asked, why in whole]


def test_a_part_with_one_explanation_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "exam.csv"
    path.write_text('Question,Options,Answer,Explanation\nq,"A one\nB two",A,why\np,"A one\nB two",A,\n')
    own = told(path, "train", fisher=0, heldout=0)
    assert told(path, "train", fisher=0, heldout=0, shuffle_explanations=0) == own


def test_rows_of_changed_explanations_are_others(exam: Path) -> None:
    source = SourceConfig(path="given", format="exam", target="answer_then_explanation")
    changes: list[dict[str, object]] = [{}, {"shuffle_explanations": 0}, {"shuffle_explanations": 1}]
    changes.append({"explanation_share": 0.5})
    assert len({source_fingerprint(source.model_copy(update=each), exam) for each in changes}) == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"format": "qa", "explanation_share": 0.5}, "is for the format exam"),
        ({"format": "exam", "shuffle_explanations": 0}, "needs a target with an explanation"),
        ({"format": "exam", "target": "explanation_then_answer", "explanation_share": 0}, "greater than 0"),
    ],
)
def test_what_has_no_explanation_has_none_to_change(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate({"path": "given"} | wrong)
