"""A user's own file as a benchmark: how it is described, what answers may be, and what is refused."""

import pytest
import yaml

from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.benchmarks import load_benchmark
from clmed.evaluation.prompts import prompt
from tests.exam_files import jsonl, load, table


def test_a_file_of_ones_own_in_five_lines(tmp_path):
    file = table(
        tmp_path / "ward.csv",
        ["stem", "a", "b", "c", "key", "topic", "level"],
        ["Dose?", "1 mg", "2 mg", "3 mg", "B", "pharmacy", "easy"],
        ["Why?", "x", "y", "", "A", "ethics", "hard"],
        ["Open?", "x", "y", "z", "", "ethics", "hard"],
    )
    text = """
        benchmark: multiple_choice
        name: ward-quiz
        path: ward.csv
        columns: {question: stem, choices: [a, b, c], answer: key, subject: topic, categories: level}
        scoring: text
    """
    benchmark = load_benchmark(BenchmarkConfig.model_validate(yaml.safe_load(text)), file)
    why, dose = benchmark.questions
    assert (why.subject, why.index, why.options, why.answer) == ("ethics", 0, {"A": "x", "B": "y"}, "A")
    assert (dose.subject, dose.categories, dose.answer) == ("pharmacy", ("level=easy",), "B")
    assert benchmark.name == "ward-quiz" and benchmark.reasons == (f"{file}, line 4: no known answer",)
    assert prompt(benchmark, dose, 0).continuations == (" 1 mg", " 2 mg", " 3 mg")


@pytest.mark.parametrize(
    ("answers", "letters"),
    [
        (["A", "c", "Ｂ"], "ACB"),
        (["red", "blue", "green"], "ACB"),
        ([0, 2, 1], "ACB"),
        (["1", "3", "2"], "ACB"),
        ([2, None, 0], "CA"),
        ([2.0, None, 0.0], "CA"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_answers_are_letters_texts_or_numbers(tmp_path, answers, letters, kind):
    import pandas

    frame = pandas.DataFrame({"question": "Q?", "A": "red", "B": "green", "C": "blue", "answer": answers}, dtype=object)
    path = tmp_path / f"mine.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    benchmark = load("multiple_choice", path, columns={"choices": ["A", "B", "C"]})
    assert "".join(question.answer for question in benchmark.questions) == letters


@pytest.mark.parametrize(
    ("choices", "answer", "columns", "options", "letter"),
    [
        (["p", "q"], "q", {}, {"A": "p", "B": "q"}, "B"),
        ({"A": "p", "B": "q"}, "B", {}, {"A": "p", "B": "q"}, "B"),
        ("A. p\nB. q\nC. r\nD. s\nE. t\nF. u", "F", {}, dict(zip("ABCDEF", "pqrstu", strict=True)), "F"),
        (["p", "q", "r"], "C,A", {"several": True}, dict(zip("ABC", "pqr", strict=True)), "AC"),
        (["p", "q", "r"], ["C", "A"], {"several": True}, dict(zip("ABC", "pqr", strict=True)), "AC"),
        (["7", "8", "9"], "8", {"answer_as": "text"}, {"A": "7", "B": "8", "C": "9"}, "B"),
        (["1", "2", "3"], 1, {"answer_as": "index"}, {"A": "1", "B": "2", "C": "3"}, "B"),
        (["same", "same", "other"], "B", {}, {"A": "same", "B": "same", "C": "other"}, "B"),
    ],
)
def test_choices_in_one_column(tmp_path, choices, answer, columns, options, letter):
    file = jsonl(tmp_path / "mine.jsonl", {"question": "Q?", "choices": choices, "answer": answer})
    (asked,) = load("multiple_choice", file, columns=columns).questions
    assert (asked.options, asked.answer) == (options, letter)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"choices": [], "answer": "A"}, "there are no options"),
        ({"choices": [["p"], ["q"]], "answer": "A"}, r"an option is no text: \['p'\]"),
        ({"choices": ["p", "q"], "answer": ["A", "C"]}, "the answer 'A,C' is no letter of the options A, B"),
        ({"choices": None, "answer": "A"}, "there are no options"),
        ({"choices": ["p"], "answer": "A"}, "there is only one option"),
        ({"choices": ["p", "q"], "answer": "C"}, "the answer 'C' is no letter of the options A, B"),
        ({"choices": ["p", "q"], "answer": 3}, "the answer '3' is no letter of the options A, B"),
        ({"choices": ["p", "", "q"], "answer": "A"}, "option B is blank"),
        ({"choices": ["p", "q"], "answer": "AB"}, "has one right option, not AB"),
        ({"choices": ["1", "0"], "answer": "1"}, "the answer '1' may be meant as text or as index or as number"),
        ({"choices": [str(n) for n in range(27)], "answer": "A"}, "there are 27 options, more than letters"),
        (
            {"choices": [{"key": "B", "value": "p"}, {"key": "A", "value": "q"}], "answer": "A"},
            "A comes after option B",
        ),
        ({"choices": {"x1": "p", "x2": "q"}, "answer": "A"}, "the option 'x1' has no letter"),
        ({"question": " ", "choices": ["p", "q"], "answer": "A"}, "the question is blank"),
        ({"answer": "A"}, "lacks the columns choices; it has question, answer"),
    ],
)
def test_rows_that_cannot_be_asked(tmp_path, record, reason):
    good = {"question": "Q?", "choices": ["p", "q"], "answer": None}
    with pytest.raises(UserError, match=rf"mine\.jsonl, line 2:? .*({reason})"):
        load("multiple_choice", jsonl(tmp_path / "mine.jsonl", good, {"question": "Q?", **record}))


@pytest.mark.parametrize("others", [[], ["A"], ["p"]])
def test_an_answer_that_is_the_text_of_two_options(tmp_path, others):
    """That is what is told, however the other rows are answered."""
    rows = [{"question": "Q?", "choices": ["p", "q", "p"], "answer": "p"}]
    rows += [{"question": "Q?", "choices": ["p", "q", "r"], "answer": answer} for answer in others]
    with pytest.raises(UserError, match=r"line 1: the answer 'p' is the text of 2 options; mend the row"):
        load("multiple_choice", jsonl(tmp_path / "mine.jsonl", *rows))


def test_files_that_cannot_be_read(tmp_path):
    file = tmp_path / "mine.jsonl"
    for content, reason in (
        (b"", "holds no questions"),
        ('{"question": "é"}'.encode("latin-1"), "mine.jsonl, line 1: not UTF-8"),
        (b'{"question"', "line 1: malformed JSON"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            load("multiple_choice", file)
    with pytest.raises(UserError, match="shots need `shots_from`"):
        load("multiple_choice", jsonl(file, {"question": "Q?", "choices": ["p", "q"], "answer": "A"}), shots=1)


def test_shots_of_ones_own_by_subject(tmp_path):
    row = {"question": "Q?", "choices": ["p", "q"], "answer": "A", "topic": "law"}
    test = jsonl(tmp_path / "test.jsonl", row, {**row, "topic": "ethics"})
    dev = jsonl(tmp_path / "dev.jsonl", {**row, "question": "Shown?"})
    with pytest.raises(UserError, match=r"dev.jsonl has 0 questions with an answer to show for ethics, but `shots`"):
        load("multiple_choice", test, dev, columns={"subject": "topic"}, shots=1, shots_from="dev.jsonl")
    benchmark = load("multiple_choice", test, dev, shots=1, shots_from="dev.jsonl")
    assert prompt(benchmark, benchmark.questions[0], 1).context.startswith(
        "Question: Shown?\nA. p\nB. q\nAnswer: A\n\n"
    )


def test_a_name_that_is_no_benchmark():
    with pytest.raises(UserError, match="there is no benchmark 'medqq'; did you mean 'medqa'"):
        load("medqq", None)
