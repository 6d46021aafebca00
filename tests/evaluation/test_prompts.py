"""Prompts, byte for byte: a blank or a line end more changes what is measured."""

import dataclasses

import numpy as np
import pytest

from clmed.config import BenchmarkConfig
from clmed.data.templates import ANSWER_END
from clmed.evaluation.benchmarks import EXAMS, Benchmark, Question, load_benchmark
from clmed.evaluation.prompts import Prompt, normalised_rows, prompt


def question(subject: str, stem: str, options: list[str], answer: str, first: str = "A") -> Question:
    letters = [chr(ord(first) + index) for index in range(len(options))]
    texts = dict(zip(letters, options, strict=True))
    return Question(subject=subject, index=0, stem=stem, options=texts, answer=answer, categories=())


def benchmark(kind, shots: list[Question], scoring="letter") -> Benchmark:
    by_subject = {shots[0].subject: tuple(shots)} if shots else {}
    return Benchmark(name=kind, exam=EXAMS[kind], questions=(), shots=by_subject, scoring=scoring)


GENETICS = [
    question("medical_genetics", f"Which is number {number}?", ["one", "two", "three ", "None"], answer)
    for number, answer in (("one", "A"), ("two", "B"))
]
ASKED = question("medical_genetics", " Which\nlast?", ["p", "q", "r", "p"], "D")

ANATOMY = [question("anatomy", "手有几根手指", ["一", "三", "五", "七"], "C")]
EXAM = [
    question("cmexam", "治疗感冒的药是", ["甲药", "乙药", "丙药"], "B"),
    question("cmexam", "桂枝汤的组成是", ["桂枝", "芍药", "石膏"], "AB"),
]
LAST_EXAM = question("cmexam", "属于寒证的是", ["恶寒", "口渴", "肢冷"], "AC")

MMLU = """\
The following are multiple choice questions (with answers) about medical genetics.

Which is number one?
A. one
B. two
C. three\x20
D. None
Answer: A

Which is number two?
A. one
B. two
C. three\x20
D. None
Answer: B

 Which
last?
A. p
B. q
C. r
D. p
Answer:"""

MMLU_ONE_SHOT = """\
The following are multiple choice questions (with answers) about medical genetics.

Which is number two?
A. one
B. two
C. three\x20
D. None
Answer: B

 Which
last?
A. p
B. q
C. r
D. p
Answer:"""

CMMLU = """\
以下是关于解剖学的单项选择题，请直接给出正确答案的选项。

题目：手有几根手指
A. 一
B. 三
C. 五
D. 七
答案是：C

题目：脚有几根脚趾
A. 一
B. 三
C. 五
D. 七
答案是："""

CMEXAM = """\
题目：治疗感冒的药是
A. 甲药
B. 乙药
C. 丙药
答案：B

题目：桂枝汤的组成是
A. 桂枝
B. 芍药
C. 石膏
答案：AB

题目：属于寒证的是
A. 恶寒
B. 口渴
C. 肢冷
答案："""


def test_mmlu():
    asked = prompt(benchmark("mmlu", GENETICS), ASKED, 2)
    assert asked == Prompt(context=MMLU, answers=tuple("ABCD"), continuations=(" A", " B", " C", " D"))


def test_fewer_shots_are_the_last_ones():
    exam = benchmark("mmlu", GENETICS)
    assert prompt(exam, ASKED, 1).context == MMLU_ONE_SHOT
    header, _, rest = MMLU_ONE_SHOT.partition("\n\n")
    assert prompt(exam, ASKED, 0).context == header + "\n\n" + rest.partition("\n\n")[2]
    with pytest.raises(ValueError, match="3 shots of medical_genetics, but there are 2"):
        prompt(exam, ASKED, 3)


def test_cmmlu():
    asked = prompt(benchmark("cmmlu", ANATOMY), question("anatomy", "脚有几根脚趾", ["一", "三", "五", "七"], "C"), 1)
    assert asked == Prompt(context=CMMLU, answers=tuple("ABCD"), continuations=tuple("ABCD"))


def test_cmmlu_with_a_subject_of_the_users():
    mine = question("my_subject", "问", ["甲", "乙", "丙", "丁"], "A")
    assert prompt(benchmark("cmmlu", []), mine, 0).context.startswith("以下是关于my subject的单项选择题")


def test_cmexam():
    asked = prompt(benchmark("cmexam", EXAM), LAST_EXAM, 2)
    answers = ("A", "B", "C", "AB", "AC", "BC", "ABC")
    assert asked == Prompt(context=CMEXAM, answers=answers, continuations=tuple(f"{each}\n" for each in answers))
    assert prompt(benchmark("cmexam", EXAM), LAST_EXAM, 0).context == CMEXAM.split("\n\n")[-1]


@pytest.mark.parametrize(("options", "first", "count"), [(5, "A", 31), (4, "A", 15), (4, "B", 15), (2, "A", 3)])
def test_cmexam_answers_are_all_sets_of_the_options(options, first, count):
    exam = question("cmexam", "问", [f"选项{index}" for index in range(options)], first, first)
    answers = prompt(benchmark("cmexam", []), exam, 0).answers
    assert len(set(answers)) == count
    assert {letter for answer in answers for letter in answer} == exam.options.keys()
    assert all(list(answer) == sorted(set(answer)) for answer in answers)
    assert [len(answer) for answer in answers] == sorted(len(answer) for answer in answers)


def test_by_text_in_english():
    asked = prompt(benchmark("mmlu", GENETICS, "text"), ASKED, 2)
    assert asked.context == (
        "Question: Which is number one?\nAnswer: one\n\nQuestion: Which is number two?\nAnswer: two\n\n"
        "Question: Which\nlast?\nAnswer:"
    )
    assert asked.continuations == (" p", " q", " r")


def test_by_text_in_chinese():
    asked = prompt(benchmark("cmmlu", ANATOMY, "text"), dataclasses.replace(ANATOMY[0], stem="几指"), 1)
    assert asked.context == "问题：手有几根手指\n答案：五\n\n问题：几指\n答案："
    assert asked.continuations == ("一", "三", "五", "七")


def test_by_text_with_several_right_options():
    asked = prompt(benchmark("cmexam", EXAM, "text"), LAST_EXAM, 2)
    assert (
        asked.context
        == "问题：治疗感冒的药是\n答案：乙药\n\n问题：桂枝汤的组成是\n答案：桂枝、芍药\n\n问题：属于寒证的是\n答案："
    )
    assert dict(zip(asked.answers, asked.continuations, strict=True)) == {
        "A": "恶寒\n",
        "B": "口渴\n",
        "C": "肢冷\n",
        "AB": "恶寒、口渴\n",
        "AC": "恶寒、肢冷\n",
        "BC": "口渴、肢冷\n",
        "ABC": "恶寒、口渴、肢冷\n",
    }


def test_a_text_that_begins_another_has_no_end():
    """As in lm-evaluation-harness, where one is right: the shorter has the larger sum, the longer the larger mean."""
    exam = Benchmark(name="mmlu", exam=EXAMS["mmlu"], questions=(), shots={}, scoring="text")
    asked = prompt(exam, question("anatomy", "Which?", ["renal", "renal failure", "x", "y"], "B"), 0)
    assert asked.continuations[:2] == (" renal", " renal failure")
    values = np.array([-4.0, -4.5, -9.0, -9.0])
    assert asked.answers[int(values.argmax())] == "A"
    normalised = {row["metric"]: row["score"] for row in normalised_rows([asked], [values], ["B"])}
    assert normalised == {"accuracy_per_byte": 1.0, "accuracy_per_character": 1.0}


@pytest.mark.parametrize(("answer", "answers"), [("D", "DBC"), ("A", "ABC"), ("B", "ABC")])
def test_equal_texts_are_one_answer(answer, answers):
    """It is right if either is: the model is not asked which of two equal texts it means."""
    asked = prompt(benchmark("mmlu", [], "text"), dataclasses.replace(ASKED, answer=answer), 0)
    assert asked.answers == tuple(answers)
    assert prompt(benchmark("mmlu", []), ASKED, 0).answers == tuple("ABCD")


def test_equal_texts_among_several():
    """An option that spells out two others reads like both of them together."""
    spelt_out = question("cmexam", "问", ["甲", "乙", "甲、乙"], "C")
    exam = benchmark("cmexam", [], "text")
    assert prompt(exam, spelt_out, 0).answers == ("A", "B", "C", "AC", "BC", "ABC")
    assert prompt(exam, dataclasses.replace(spelt_out, answer="AB"), 0).answers == ("A", "B", "AB", "AC", "BC", "ABC")


@pytest.mark.parametrize(
    ("kind", "scoring"), [("mmlu", "letter"), ("mmlu", "text"), ("cmmlu", "text"), ("cmexam", "text")]
)
def test_every_published_question_can_be_answered(real_data, kind, scoring):
    path = real_data / kind / ("test.csv" if kind == "cmexam" else "")
    exam = load_benchmark(BenchmarkConfig(benchmark=kind, scoring=scoring), path)
    for each in exam.questions:
        asked = prompt(exam, each, 0)
        assert each.answer in asked.answers
        assert len(set(asked.continuations)) == len(asked.continuations) == len(asked.answers)
        assert all(text.strip() and text.endswith(ANSWER_END) == exam.several for text in asked.continuations)
        assert all(text.startswith(" ") == asked.context.endswith(":") for text in asked.continuations)
