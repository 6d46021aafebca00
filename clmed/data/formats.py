"""From a record to its text, and what of it is learned: plain text, questions with answers, exams, conversations.

A document is a text in pieces, each with the *weight* that its tokens have in the loss: 0 for a prompt, 1 for what is
learned, `answer_weight` for the answer of an exam that comes with an explanation. How pieces become tokens is told in
tokenising.py, how a conversation gets its template in chat.py.
"""

from collections.abc import Sequence
from typing import Any

from clmed.config import SourceConfig
from clmed.data.exams import is_missing, parse_answer, parse_options
from clmed.data.sources import Record
from clmed.data.templates import ANSWER_END, after, ask_by_letter, ask_by_text, join_answers

Pieces = list[tuple[str, float]]
Message = dict[str, str]

ROLES = ("system", "user", "assistant")


def texts(source: SourceConfig, record: Record) -> Pieces:
    """The document of a record as (text, weight) pieces, a prompt first if there is one.

    An empty list means that there is nothing to learn: no text, no question or no answer. The pieces of a conversation
    are what is said, without the template. Raises ValueError, with the reason, for what cannot be understood; the
    caller knows the file and the line.
    """
    if source.format == "text":
        text = _cell(record, source.text)
        return [(text, 1.0)] if text.strip() else []
    if source.format == "chat":
        said = messages(source, record)
        return [(message["content"], float(message["role"] == "assistant")) for message in said]
    if source.format == "qa":
        question, answer = _cell(record, source.question).strip(), _cell(record, source.answer).strip()
        prompt = ask_by_text(question)
        return [(prompt + after(prompt, answer) + ANSWER_END, 1.0)] if question and answer else []
    return _exam(source, record)


def messages(source: SourceConfig, record: Record) -> list[Message]:
    """The conversation of a record of the format chat: a list of {role, content}, or a pair of question and answer.

    An empty list means that there is nothing to learn. Raises ValueError, with the reason, for what is no conversation.
    """
    if source.messages is None:
        asked = [_cell(record, column).strip() for column in (source.question, source.input) if column is not None]
        answer = _cell(record, source.answer).strip()
        question = "\n".join(filter(None, asked))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return turns if asked[0] and answer else []
    turns = [_message(source.messages, item) for item in _list(source.messages, record[source.messages])]
    answered = any(message["role"] == "assistant" and message["content"].strip() for message in turns)
    return turns if answered else []


def _list(column: str, value: Any) -> Sequence[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"column {column!r} holds {type(value).__name__}, not a list of messages")
    return value


def _message(column: str, item: Any) -> Message:
    if not isinstance(item, dict) or not {"role", "content"} <= set(item):
        raise ValueError(f"a message in column {column!r} is no {{role, content}}: {str(item)[:40]!r}")
    if item["role"] not in ROLES:
        raise ValueError(f"a message has the role {item['role']!r}; the roles are {', '.join(ROLES)}")
    if not isinstance(item["content"], str):
        raise ValueError(f"the content of a message is {type(item['content']).__name__}, not text")
    return {"role": item["role"], "content": item["content"]}


def _cell(record: Record, column: str) -> str:
    """The text of a cell: a list of texts (also nested) becomes lines, a number its digits, nothing the empty text."""
    value = record[column]
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_cell({column: item}, column) for item in value)
    if value is None or value != value:  # not-a-number: a missing cell
        return ""
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"column {column!r} holds {type(value).__name__}, not text")


def _exam(source: SourceConfig, record: Record) -> Pieces:
    stem = _cell(record, "Question").strip()
    answer_cell = _cell(record, "Answer")
    if is_missing(stem) or is_missing(answer_cell):
        return []
    options = parse_options(record["Options"])
    letters = parse_answer(answer_cell, options)
    if source.answer_as == "letter":
        prompt, answer = ask_by_letter(stem, options), letters
    else:
        right = [options[letter] for letter in letters]
        if not all(right):
            raise ValueError(f"a right option ({', '.join(letters)}) has no text")
        prompt, answer = ask_by_text(stem), join_answers(right)
    return _with_explanation(source, record, prompt, after(prompt, answer) + ANSWER_END)


def _with_explanation(source: SourceConfig, record: Record, prompt: str, answer: str) -> Pieces:
    """An explanation that is missing (a sixth of CMExam's) leaves its line out."""
    if source.target == "answer":
        return [(prompt, 0.0), (answer, 1.0)]
    explanation = explanation_of(record)
    label = "解析：" if prompt.endswith("：") else "Explanation: "
    line = f"{label}{explanation}{ANSWER_END}" if explanation else ""
    weight = source.answer_weight
    if source.target == "answer_then_explanation":
        return _joined([(prompt, 0.0), (answer, weight), (line, 1.0)])
    question_end = prompt.rindex("\n") + 1  # the prompt's last line asks for the answer, which now comes last
    return _joined([(prompt[:question_end], 0.0), (line + prompt[question_end:], 1.0), (answer, weight)])


def explanation_of(record: Record) -> str:
    """The explanation of an exam's record, "" where it is missing."""
    explanation = _cell(record, "Explanation").strip()
    return "" if is_missing(explanation) else explanation


def _joined(pieces: Pieces) -> Pieces:
    """Without empty pieces, and neighbours of one weight as one."""
    joined: Pieces = []
    for text, weight in pieces:
        if joined and joined[-1][1] == weight:
            joined[-1] = joined[-1][0] + text, weight
        elif text:
            joined.append((text, weight))
    return joined
