"""How questions become text: one place, so that what is trained on and what is asked are the same to the letter.

Two ways to ask. *By text* (cloze): the prompt holds the question alone and the answer is the text of the option, which
suits models too small to learn letters. *By letter*: the prompt lists the options and the answer is a letter string.
Neither ever says whether one or several options are right. Every answer ends with a newline, which also closes
it when answers of different lengths ("A" against "AB") are compared.
"""

from collections.abc import Mapping

ANSWER_END = "\n"


def is_han(text: str) -> bool:
    """Whether `text` holds a Chinese character (CJK Unified Ideographs)."""
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def ask_by_text(question: str) -> str:
    """The prompt of a question without options, in the question's own language."""
    return f"问题：{question}\n答案：" if is_han(question) else f"Question: {question}\nAnswer:"


def ask_by_letter(question: str, options: Mapping[str, str]) -> str:
    """The prompt of an exam question with its options by letter (CMExam's paper gives no template, this is ours)."""
    lines = option_lines(options)
    return f"题目：{question}\n{lines}答案：" if is_han(question + lines) else f"Question: {question}\n{lines}Answer:"


def option_lines(options: Mapping[str, str]) -> str:
    """`A. text`, an option a line."""
    return "".join(f"{letter}. {text}\n" for letter, text in options.items())


def join_answers(texts: list[str]) -> str:
    """Several right options as one answer."""
    return ("、" if any(is_han(text) for text in texts) else ", ").join(texts)


def after(prompt: str, answer: str) -> str:
    """`answer` as it continues `prompt`: after a Latin prompt the space belongs to the answer.

    With byte-level BPE, "Answer: " + "Rome" is not how "Answer: Rome" is tokenised, and scores fall to chance.
    """
    return answer if prompt.endswith("：") else f" {answer}"
