"""How much of a leak n-grams find: everything that is verbatim, half of what one word was changed in, no paraphrase.

The questions are made up for this file. The numbers are those of docs/data.md.
"""

import json
from pathlib import Path
from typing import Any

from clmed.data.contamination import HALF, Asked, QuestionIndex
from clmed.data.units import units

SET: list[dict[str, Any]] = json.loads(Path(__file__).with_name("paraphrases.json").read_text(encoding="utf-8"))


def found(texts: list[str]) -> tuple[int, int]:
    """(touched, held): of how many questions the text that stands for it is found."""
    questions = [
        Asked(
            benchmark="made-up",
            subject="all",
            index=index,
            stem=question["stem"],
            options=tuple(question["options"]),
            right=(question["right"],),
        )
        for index, question in enumerate(SET)
    ]
    hits = QuestionIndex(questions).search(units(texts))
    own = hits.text == hits.question
    assert own.all(), "a text touches the question of another"
    return int(own.sum()), int((hits.share >= HALF).sum())


def exam(stem: str, question: dict[str, Any]) -> str:
    options = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", question["options"], strict=False))
    return f"{stem}\n{options}答案：A\n"


def test_every_verbatim_question_is_found() -> None:
    assert found([exam(question["stem"], question) for question in SET]) == (17, 17)
    assert found([f"{question['stem']} {question['options'][question['right']]}." for question in SET])[1] >= 15


def test_a_changed_word_hides_half_of_the_questions() -> None:
    assert found([exam(question["edited"], question) for question in SET]) == (9, 4)


def test_no_paraphrase_is_found() -> None:
    assert found([question["paraphrase"] for question in SET]) == (0, 0)
