"""From a record to tokens and a loss mask: plain text, questions with answers, and exams.

A document is a text whose end, from some character on, is *supervised* (takes part in the loss). The whole text is
tokenised at once, exactly as a user's text would be; tokenising prompt and answer apart would put token borders where a
model never sees them. A token is supervised when its characters end after the prompt: where a token spans the border,
and where a character is split over several tokens, no part of the answer is lost. The end-of-text token is supervised,
the first token never (nothing predicts it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from clmed.config import SourceConfig
from clmed.data.exams import is_missing, parse_answer, parse_options
from clmed.data.sources import Record
from clmed.data.templates import ANSWER_END, after, ask_by_letter, ask_by_text, join_answers
from clmed.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pieces = list[tuple[str, bool]]


@dataclass(frozen=True, kw_only=True)
class Document:
    """One tokenised text; the three arrays have the same length.

    ids: int32. supervised: bool. bytes: int32, the UTF-8 bytes of the text that each token covers; a character split
    over several tokens is the first one's, special tokens cover nothing, and the sum is the text's size.
    """

    ids: np.ndarray
    supervised: np.ndarray
    bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> "Document":
        return Document(ids=self.ids[part], supervised=self.supervised[part], bytes=self.bytes[part])


def texts(source: SourceConfig, record: Record) -> Pieces:
    """The document of a record as (text, supervised?) pieces, a prompt first if there is one.

    An empty list means that there is nothing to learn: no text, no question or no answer. Raises ValueError, with the
    reason, for what cannot be understood; the caller knows the file and the line.
    """
    if source.format == "text":
        text = _cell(record, source.text)
        return [(text, True)] if text.strip() else []
    if source.format == "qa":
        question, answer = _cell(record, source.question).strip(), _cell(record, source.answer).strip()
        prompt = ask_by_text(question)
        return [(prompt + after(prompt, answer) + ANSWER_END, True)] if question and answer else []
    return _exam(source, record)


def encode(batch: Sequence[Pieces], tokenizer: "PreTrainedTokenizerBase") -> list[Document]:
    """Tokenise documents whole, with the tokenizer's own special tokens, and end-of-text where these lack it."""
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        lack = "end-of-text token (eos_token)" if tokenizer.is_fast else "tokenizer.json, which gives token offsets"
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path or 'given'} cannot encode training data: it has no {lack}."
        )
    whole = ["".join(text for text, _ in pieces) for pieces in batch]
    prompts = [sum(len(text) for text, supervised in pieces if not supervised) for pieces in batch]
    encodings = tokenizer(whole, return_attention_mask=False, return_token_type_ids=False, verbose=False).encodings
    eos = int(tokenizer.eos_token_id)
    return [_document(*each, eos) for each in zip(whole, prompts, encodings, strict=True)]


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
        return [(prompt, False), (answer, True)]
    explanation = _cell(record, "Explanation").strip()
    label = "解析：" if prompt.endswith("：") else "Explanation: "
    line = "" if is_missing(explanation) else f"{label}{explanation}{ANSWER_END}"
    if source.target == "answer_then_explanation":
        return [(prompt, False), (answer + line, True)]
    question_end = prompt.rindex("\n") + 1  # the prompt's last line asks for the answer, which now comes last
    return [(prompt[:question_end], False), (line + prompt[question_end:] + answer, True)]


def _document(text: str, prompt: int, encoding: Any, eos: int) -> Document:
    """`prompt`: the number of characters that are not supervised."""
    ids = np.array(encoding.ids, dtype=np.int32)
    special = np.array(encoding.special_tokens_mask, dtype=bool)
    ends = np.fromiter(map(itemgetter(1), encoding.offsets), dtype=np.int64, count=len(ids))
    # The characters covered so far. It never falls: special tokens have the offsets (0, 0).
    covered = np.maximum.accumulate(np.where(special, 0, ends))
    supervised = covered > prompt
    content = np.flatnonzero(~special)
    if len(content):  # what the tokenizer dropped at the end counts as covered, so that bytes add up
        covered[content[-1] :] = len(text)
    sizes = np.diff(_byte_positions(text)[covered], prepend=0)
    if not len(ids) or ids[-1] != eos:
        ids, supervised, sizes = np.append(ids, np.int32(eos)), np.append(supervised, True), np.append(sizes, 0)
    supervised[0] = False
    return Document(ids=ids, supervised=supervised, bytes=sizes.astype(np.int32))


def _byte_positions(text: str) -> np.ndarray:
    """UTF-8 bytes before each character, and the total: len(text) + 1 numbers."""
    if text.isascii():
        return np.arange(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF).astype(np.int64)
    return np.concatenate(([0], np.cumsum(sizes)))
