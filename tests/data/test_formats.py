import csv
import json
import random

import numpy as np
import pytest

from clmed.config import SourceConfig
from clmed.data.exams import parse_answer, parse_options
from clmed.data.formats import texts
from clmed.data.tokenising import encode
from clmed.errors import UserError

EXAM = {
    "Question": "桂枝汤的君药是",
    "Options": "A 桂枝\nB 芍药\nD 甘草",
    "Answer": "DA",
    "Explanation": "桂枝辛温，甘草调和。",
}
ASKED = "题目：桂枝汤的君药是\nA. 桂枝\nB. 芍药\nD. 甘草\n"


def exam(**changes) -> SourceConfig:
    return SourceConfig(path="x", format="exam", **changes)


def byte_values() -> dict[str, int]:
    """The byte behind each character of a byte-level token (GPT-2's table, written independently)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {**{chr(byte): byte for byte in shown}, **{chr(256 + place): byte for place, byte in enumerate(hidden)}}


def byte_fallback_tokenizer():
    """As in Llama 2: characters that are no token are spelled in bytes, and a space is put before the text."""
    from tokenizers import Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdeABCD：:"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def border_tokenizer():
    """Byte-level BPE that does not split into words first, and whose first merges make "：甲" one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["：甲"] * 50 + ["答案：丙"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")


def test_text_is_left_as_it_is_and_all_supervised():
    source = SourceConfig(path="x", format="text", text="body")
    assert texts(source, {"body": " Karo \n"}) == [(" Karo \n", True)]
    assert texts(source, {"body": ["one", ["two", None], 3]}) == [("one\ntwo\n\n3", True)]


def test_questions_are_asked_in_their_own_language():
    source = SourceConfig(path="x", format="qa")
    assert texts(source, {"question": " Where? ", "answer": "Karo\n"}) == [("Question: Where?\nAnswer: Karo\n", True)]
    assert texts(source, {"question": "何处？", "answer": "海边"}) == [("问题：何处？\n答案：海边\n", True)]


@pytest.mark.parametrize(
    ("target", "prompt", "answer"),
    [
        ("answer", ASKED + "答案：", "AD\n"),
        ("answer_then_explanation", ASKED + "答案：", "AD\n解析：桂枝辛温，甘草调和。\n"),
        ("explanation_then_answer", ASKED, "解析：桂枝辛温，甘草调和。\n答案：AD\n"),
    ],
)
def test_exams_by_letter(target, prompt, answer):
    assert texts(exam(target=target), EXAM) == [(prompt, False), (answer, True)]


@pytest.mark.parametrize(
    ("target", "pieces"),
    [
        ("answer_then_explanation", [(ASKED + "答案：", 0), ("AD\n", 20), ("解析：桂枝辛温，甘草调和。\n", 1)]),
        ("explanation_then_answer", [(ASKED, 0), ("解析：桂枝辛温，甘草调和。\n答案：", 1), ("AD\n", 20)]),
    ],
)
@pytest.mark.parametrize("kind", ["pico", "crossing", "bytes"])
def test_the_answer_weighs_what_it_is_given(tokenizer, target, pieces, kind):
    """And a token that holds a part of the answer is one of the answer's."""
    chosen = {"pico": tokenizer, "crossing": border_tokenizer(), "bytes": byte_fallback_tokenizer()}[kind]
    assert texts(exam(target=target, answer_weight=20), EXAM) == pieces
    (document,) = encode([pieces], chosen)
    text = "".join(piece for piece, _ in pieces)
    of_characters = np.repeat([weight for _, weight in pieces], [len(piece) for piece, _ in pieces])
    given = chosen(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    expected = [of_characters[start:end].max() for start, end in given]
    inside = document.weights[1:-1] if kind == "bytes" else document.weights[:-1]
    assert inside[1:].tolist() == expected[1:] and document.weights[-1] == 1 and document.weights[0] == 0
    assert set(document.weights.tolist()) == {0, 1, 20}


def test_exams_by_text():
    assert texts(exam(answer_as="text"), EXAM) == [("问题：桂枝汤的君药是\n答案：", False), ("桂枝、甘草\n", True)]
    english = {"Question": "Where?", "Options": "A Karo\nB Vell", "Answer": "B", "Explanation": "It is wet."}
    source = exam(answer_as="text", target="explanation_then_answer")
    assert texts(source, english) == [("Question: Where?\n", False), ("Explanation: It is wet.\nAnswer: Vell\n", True)]


@pytest.mark.parametrize("nothing", ["", " ", "nan"])
def test_what_is_missing(nothing):
    without = {**EXAM, "Explanation": nothing}
    assert texts(exam(target="answer_then_explanation"), without)[1] == ("AD\n", True)
    assert texts(exam(target="explanation_then_answer"), without) == [(ASKED, False), ("答案：AD\n", True)]
    assert texts(exam(), {**EXAM, "Answer": nothing}) == []
    assert texts(exam(), {**EXAM, "Question": nothing}) == []


def test_empty_texts_are_no_documents():
    assert texts(SourceConfig(path="x", format="text"), {"text": " \n"}) == []
    assert texts(SourceConfig(path="x", format="text"), {"text": float("nan")}) == []
    assert texts(SourceConfig(path="x", format="qa"), {"question": "a", "answer": None}) == []


def test_options_are_parsed_as_people_write_them():
    assert parse_options("B 硫酸阿托品\nC 氢溴酸东莨菪碱\n") == {"B": "硫酸阿托品", "C": "氢溴酸东莨菪碱"}
    written = parse_options("A. one\r\n B、two B C\n\n  of them\nE\tATP\nF ")
    assert written == {"A": "one", "B": "two B C\nof them", "E": "ATP", "F": ""}
    assert parse_answer(" C, B", {"A": "", "B": "", "C": ""}) == "BC"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Answer": "AC"}, "the answer 'AC' is no letter of the options A, B, D"),
        ({"Answer": "桂枝"}, "is no letter"),
        ({"Answer": "AA"}, "names an option twice"),
        ({"Options": "A 甲\nA 乙"}, "option A comes after option A"),
        ({"Options": "B 甲\nA 乙"}, "option A comes after option B"),
        ({"Options": "甲\n乙"}, "do not begin with a letter"),
        ({"Options": " "}, "there are no options"),
        ({"Question": {"zh": "甲"}}, "column 'Question' holds dict, not text"),
    ],
)
def test_exams_that_cannot_be_understood(changes, message):
    with pytest.raises(ValueError, match=message):
        texts(exam(), {**EXAM, **changes})
    with pytest.raises(ValueError, match="has no text"):
        texts(exam(answer_as="text"), {**EXAM, "Options": "A\tx\nD "})


def check_against_bytes(pieces, document, tokenizer):
    """The mask and the sizes, from the bytes that the tokens stand for instead of from offsets."""
    text = "".join(piece for piece, _ in pieces)
    prompt = len("".join(piece for piece, supervised in pieces if not supervised).encode())
    values = byte_values()
    tokens = tokenizer.convert_ids_to_tokens(document.ids[:-1].tolist())
    assert bytes(values[character] for token in tokens for character in token) == text.encode()
    ends = np.cumsum([len(token) for token in tokens])
    # A token that ends inside a character of the answer holds a part of it.
    expected = [*(ends > prompt), True]
    expected[0] = False
    assert document.supervised.tolist() == expected
    # Sizes: at every border of characters, the bytes so far are those of the tokens so far.
    borders = np.cumsum([0, *(len(character.encode()) for character in text)])
    at_border = np.isin(ends, borders)
    assert np.array_equal(np.cumsum(document.bytes[:-1])[at_border], ends[at_border])
    assert document.bytes.sum() == len(text.encode()) and document.bytes[-1] == 0 and (document.bytes >= 0).all()


def random_pieces(seed: int):
    generator = random.Random(seed)
    letters = "aZ 09\n\t：答案甲乙丙、é́🩺\u3000§"
    prompt, answer = ("".join(generator.choices(letters, k=generator.randint(1, 30))) for _ in range(2))
    return [(prompt, False), (answer, True)]


@pytest.mark.parametrize("kind", ["pico", "crossing"])
def test_every_answer_character_is_supervised_and_no_prompt_character(tokenizer, kind):
    chosen = tokenizer if kind == "pico" else border_tokenizer()
    batch = [random_pieces(seed) for seed in range(300)]
    batch += [[("题目：甲？\n答案：", False), ("甲乙丙\n", True)], [("答案：乙甲", True)]]
    for pieces, document in zip(batch, encode(batch, chosen), strict=True):
        check_against_bytes(pieces, document, chosen)


def test_a_token_across_the_border_is_supervised():
    """ "：甲" is one token here: without it the answer's first character would never be learned."""
    crossing = border_tokenizer()
    document = encode([[("答案：", False), ("甲乙", True)]], crossing)[0]
    assert crossing.decode(document.ids[document.supervised]) == "：甲乙</s>"
    assert crossing.decode(document.ids[~document.supervised]) == "答案"


def test_characters_spelled_in_bytes_are_supervised_whole():
    tokenizer = byte_fallback_tokenizer()
    document = encode([[("a桂：", False), ("枝b", True)]], tokenizer)[0]
    assert tokenizer.convert_ids_to_tokens(document.ids.tolist())[:1] == ["<s>"]
    told = tokenizer.convert_ids_to_tokens(document.ids[document.supervised].tolist())
    assert told == ["<0xE6>", "<0x9E>", "<0x9D>", "b", "</s>"]  # and the template's </s> is not doubled
    assert document.bytes.tolist() == [0, 1, 0, 3, 0, 0, 3, 3, 0, 0, 1, 0]


def test_the_whole_text_is_tokenised_at_once(tokenizer):
    pieces = texts(exam(target="answer_then_explanation"), EXAM)
    document = encode([pieces], tokenizer)[0]
    assert document.ids.tolist() == [*tokenizer("".join(text for text, _ in pieces)).input_ids, tokenizer.eos_token_id]
    assert document.ids.dtype == np.int32 and document.supervised.dtype == bool
    assert tokenizer.decode(document.ids[document.supervised]) == "AD\n解析：桂枝辛温，甘草调和。\n</s>"


def test_documents_do_not_depend_on_their_batch(tokenizer):
    batch = [random_pieces(seed) for seed in range(20)]
    tokenizer(["a", "bb"], padding=True, truncation=True, max_length=1)  # leaves its settings in the tokenizer
    for together, pieces in zip(encode(batch, tokenizer), batch, strict=True):
        alone = encode([pieces], tokenizer)[0]
        for name in ("ids", "weights", "bytes"):
            assert np.array_equal(getattr(together, name), getattr(alone, name))


def test_a_tokenizer_without_end_of_text_is_refused():
    from transformers import PreTrainedTokenizerFast

    without = PreTrainedTokenizerFast(tokenizer_object=border_tokenizer().backend_tokenizer)
    with pytest.raises(UserError, match="it has no end-of-text token"):
        encode([[("a", True)]], without)


@pytest.mark.parametrize("answer_as", ["letter", "text"])
@pytest.mark.parametrize("target", ["answer", "answer_then_explanation", "explanation_then_answer"])
def test_real_exams_lose_nothing(real_data, tokenizer, target, answer_as):
    with (real_data / "cmexam" / "train.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    source = exam(target=target, answer_as=answer_as)
    every = [texts(source, row) for row in rows]
    assert [row["Answer"] for row, pieces in zip(rows, every, strict=True) if not pieces] == ["nan"]
    for row, pieces in zip(rows, every, strict=True):
        whole = "".join(text for text, _ in pieces)
        if pieces:
            assert row["Question"].strip() in whole
            assert "nan" not in pieces[1][0] or "nan" in row["Options"]
            if target != "answer" and row["Explanation"] != "nan":
                assert row["Explanation"].strip() in pieces[1][0]
            if answer_as == "letter":
                assert all(line[2:].strip() in whole for line in row["Options"].split("\n"))
                assert row["Answer"] in pieces[1][0]
    sample = [pieces for pieces in every[::50] if pieces]
    for pieces, document in zip(sample, encode(sample, tokenizer), strict=True):
        check_against_bytes(pieces, document, tokenizer)


def test_real_texts_keep_their_bytes(real_data, tokenizer):
    lines = (real_data / "general" / "c4_sample.jsonl").read_text(encoding="utf-8").splitlines()
    batch = [[(json.loads(line)["text"], True)] for line in lines]
    for pieces, document in zip(batch, encode(batch, tokenizer), strict=True):
        check_against_bytes(pieces, document, tokenizer)
