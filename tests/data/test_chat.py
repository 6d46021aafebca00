"""Conversations: what is learned is what the template gives to the assistant, token by token."""

import json

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from clmed.config import SourceConfig
from clmed.data.chat import ChatTemplate
from clmed.data.formats import messages, texts
from clmed.data.rows import document_texts, prepare
from clmed.data.sources import records
from clmed.data.tokenising import Encoder
from clmed.errors import UserError
from tests.data.test_formats import border_tokenizer, byte_fallback_tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}[A]{% generation %}"
    "{{ message.content }}</s>{% endgeneration %}{% else %}[{{ message.role }}]{{ message.content | trim }}{% endif %}"
    "{% endfor %}"
)
LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if message.role == 'user' %}[INST] {{ message.content | trim }} [/INST]"
    "{% else %} {{ message.content | trim }} </s>{% endif %}{% endfor %}"
)
CHANGING = "{% for message in messages %}{{ message.role if loop.last else 'x' }}{{ message.content }}{% endfor %}"

TURNS = [
    [("user", "桂枝汤的君药是？"), ("assistant", "桂枝。")],
    [("user", " Where is Karo? "), ("assistant", "On the river Vell."), ("user", "Sure?"), ("assistant", "Yes\n")],
    [("user", "甲"), ("assistant", "甲乙"), ("user", "乙"), ("assistant", ""), ("user", "丙"), ("assistant", "甲🩺é")],
]
WITH_SYSTEM = [("system", "Be brief."), ("user", "甲？"), ("assistant", "甲。")]


def conversation(turns) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def chat_tokenizer(kind: str, template: str | None) -> PreTrainedTokenizerFast:
    """Tokens across the border of header and answer; characters in bytes and a space put before; and a plain one."""
    tokenizer = border_tokenizer() if kind == "crossing" else byte_fallback_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def encoded(tokenizer, turns, template=None):
    pieces = ChatTemplate("a", tokenizer, template).pieces(conversation(turns))
    (document,) = Encoder(tokenizer, closed=False)([pieces])
    return document


def tokens_of_spans(tokenizer, text, spans) -> list[bool]:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    return [any(first < end and start < last for start, end in spans) for first, last in offsets]


@pytest.mark.parametrize("kind", ["crossing", "bytes"])
@pytest.mark.parametrize("turns", [*TURNS, WITH_SYSTEM])
def test_with_marks_it_is_what_transformers_masks(kind, turns):
    tokenizer = chat_tokenizer(kind, MARKED)
    document = encoded(tokenizer, turns)
    expected = tokenizer.apply_chat_template(
        conversation(turns), return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    assert document.ids.tolist() == expected["input_ids"]
    assert document.supervised.tolist() == [bool(mask) for mask in expected["assistant_masks"]]
    assert document.supervised.any() and not document.supervised.all()


@pytest.mark.parametrize("kind", ["crossing", "bytes"])
@pytest.mark.parametrize("template", [CHATML, LLAMA])
@pytest.mark.parametrize("turns", TURNS)
def test_without_marks_it_is_what_each_turn_adds(kind, template, turns):
    """Brute force: an answer's characters are those that the rendering gains when the answer is given."""
    tokenizer = chat_tokenizer(kind, template)
    said = conversation(turns)

    def rendered(count: int, prompt: bool) -> str:
        return tokenizer.apply_chat_template(said[:count], tokenize=False, add_generation_prompt=prompt)

    text = rendered(len(said), False)
    spans = [(len(rendered(turn, True)), len(rendered(turn + 1, False))) for turn in range(1, len(said), 2)]
    document = encoded(tokenizer, turns)
    assert document.ids.tolist() == tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]
    assert document.supervised.tolist() == tokens_of_spans(tokenizer, text, spans)
    for message, (start, end) in zip(said[1::2], spans, strict=True):
        assert message["content"].strip() in text[start:end]


def test_a_template_in_the_source_replaces_the_tokenizers():
    tokenizer = chat_tokenizer("crossing", LLAMA)
    given = encoded(tokenizer, TURNS[0], template=CHATML)
    assert given.ids.tolist() == encoded(chat_tokenizer("crossing", CHATML), TURNS[0]).ids.tolist()


def test_a_tokenizer_without_template_is_refused_with_a_way_out(tokenizer):
    with pytest.raises(UserError, match=r"no chat template\. Give one as data\.a\.template"):
        ChatTemplate("a", tokenizer, None)


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (LLAMA, [("user", "a"), ("user", "b"), ("assistant", "c")], r"does not take .*\(roles must alternate"),
        (CHATML, [("assistant", "a"), ("user", "b"), ("assistant", "c")], "begins with the assistant"),
        ("{{ messages + 1 }}", TURNS[0], "does not take this conversation"),
        (CHANGING, TURNS[1], "give the source a `template` with {% generation %} tags"),
    ],
)
def test_conversations_that_a_template_does_not_take(template, turns, message):
    with pytest.raises(ValueError, match=message):
        encoded(chat_tokenizer("crossing", template), turns)


def chat(**changes) -> SourceConfig:
    return SourceConfig(path="x", format="chat", fisher=0, heldout=0, **changes)


def test_pairs_become_conversations():
    source = chat(question="instruction", input="input", answer="output")
    record = {"instruction": " Add. ", "input": "1, 2", "output": "3\n"}
    assert messages(source, record) == conversation([("user", "Add.\n1, 2"), ("assistant", "3")])
    assert messages(source, record | {"input": ""}) == conversation([("user", "Add."), ("assistant", "3")])
    assert messages(source, record | {"output": None}) == messages(source, record | {"instruction": ""}) == []
    assert texts(source, record) == [("Add.\n1, 2", 0), ("3", 1)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "holds str, not a list of messages"),
        (["hello"], "is no {role, content}"),
        ([{"role": "bot", "content": "a"}], "has the role 'bot'; the roles are system, user, assistant"),
        ([{"role": "user", "content": [{"type": "image"}]}], "the content of a message is list, not text"),
    ],
)
def test_what_is_no_conversation(value, message):
    with pytest.raises(ValueError, match=message):
        messages(chat(messages="messages"), {"messages": value})
    assert messages(chat(messages="messages"), {"messages": None}) == []
    assert messages(chat(messages="messages"), {"messages": conversation(TURNS[0][:1])}) == []  # nobody answers


def test_the_part_of_a_conversation_does_not_depend_on_the_template(tmp_path):
    path = tmp_path / "a.jsonl"
    every = [conversation([("user", f"Where is {n}?"), ("assistant", f"There, {n}.")]) for n in range(100)]
    path.write_text("".join(json.dumps({"messages": each}) + "\n" for each in every))
    source = chat(messages="messages").model_copy(update={"fisher": 0.3})
    made = {}
    for template in (CHATML, LLAMA):
        tokenizer = chat_tokenizer("crossing", template)
        rows = prepare("a", source, path, "fisher", tokenizer, 256, cache=tmp_path)
        text = tokenizer.decode(np.concatenate([row["input_ids"][: row["tokens"]] for row in rows]))
        made[template] = sorted(n for n in range(100) if f"Where is {n}?" in text)
    assert made[CHATML] == made[LLAMA] and 10 < len(made[CHATML]) < 60
    assert len(list(document_texts("a", source, path, "fisher"))) == len(made[CHATML])


def test_a_bad_conversation_is_told_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [TURNS[0], [("user", "a"), ("user", "b"), ("assistant", "c")]]
    path.write_text("".join(json.dumps({"messages": conversation(turns)}) + "\n" for turns in lines))
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: the chat template does not take this"):
        prepare("a", chat(messages="messages"), path, "train", chat_tokenizer("crossing", LLAMA), 256, cache=tmp_path)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_instructions(real_data, tmp_path, tokenizer, language):
    """Alpaca, all of it: every row's learned text is the answers with what ends a turn, and nothing else."""
    source = chat(question="instruction", input="input", answer="output", template=CHATML)
    path = real_data / "general" / f"alpaca_{language}.jsonl"
    rows = prepare("a", source, path, "train", tokenizer, 4096, cache=tmp_path)
    ids = np.concatenate([row["input_ids"][row["labels"] >= 0] for row in rows])
    answers = [messages(source, record)[1]["content"] for _, record in records(source, path)]
    assert sorted(tokenizer.decode(ids).split("<|im_end|>\n")[:-1]) == sorted(answers)
