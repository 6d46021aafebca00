"""Requests in pieces have exactly the tokens of their whole texts, for tokenisers of different kinds."""

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from clmed.evaluation import encoding
from clmed.evaluation.encoding import Request, breaks_at_lines, encode, token_counts

TEXTS = [
    "The capital of Norland is Karo.\n\nKaro lies on the river Vell;\n  it has 12,345 harbours.\n",
    "题目：治疗感冒的常用药是？\nA. 甲药\nB. 乙药\n答案：AB\n\n\u3000桂枝汤的主要成分是什么？\n",
    "def f(x):\n\treturn x\n\n\n\nprint(f(1))   \n \n Question: ok?\nAnswer: B\n\n",
]
LLAMA3 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def gpt2_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def llama3_like() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    return tokenizer


def llama2_like() -> Tokenizer:
    """No pre-tokeniser: the whole text is one word, after a leading ▁."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def flattening() -> Tokenizer:
    """Newlines become spaces, which merge with the word that follows: no line start is safe."""
    tokenizer = gpt2_like()
    tokenizer.normalizer = normalizers.Replace("\n", " ")
    return tokenizer


def train(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    special = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    lines = [line for text in TEXTS for line in text.splitlines(keepends=True)] * 4
    if isinstance(tokenizer.model, models.Unigram):
        trainer = trainers.UnigramTrainer(vocab_size=250, special_tokens=special[:4], unk_token="<unk>")
    else:
        alphabet = [] if tokenizer.pre_tokenizer is None else pre_tokenizers.ByteLevel.alphabet()
        size = 700 if tokenizer.pre_tokenizer is None else 450
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    tokenizer.train_from_iterator([word for line in lines for word in (line.rstrip("\n"), line)], trainer)
    begin, end = ("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))
    template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[begin, end])
    processor = tokenizer.post_processor
    tokenizer.post_processor = processors.Sequence([processor, template]) if processor else template
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def make_requests() -> list[Request]:
    draw = np.random.default_rng(0)
    requests = []
    for group in range(3):
        lines = "".join(TEXTS).split("\n")
        draw.shuffle(lines)
        shots = "\n".join(lines[:6])
        for _ in range(6):
            question = "\n".join(draw.choice(lines, 4))
            for ask in ("Answer:", "答案：", "\n", "  ", "Answer:\n\n"):
                context = f"{shots}\n\n{question}\n{ask}"
                requests.append(Request(group=f"{group}", context=context, continuations=(" A", " B\n", "甲药", "\nx")))
    return requests


def whole(tokenizer, request: Request) -> list[list[int]]:
    return [tokenizer(request.context + end)["input_ids"][:-1] for end in request.continuations]


@pytest.mark.parametrize("make", [gpt2_like, llama3_like, llama2_like, unigram, flattening])
def test_equals_whole_texts(make):
    tokenizer, requests = train(make()), make_requests()
    encoded = encode(tokenizer, requests)
    for request, got in zip(requests, encoded, strict=True):
        texts = whole(tokenizer, request)
        assert [[*got.context.tolist(), *end] for end in got.continuations] == texts
        alone = tokenizer(request.context)["input_ids"][:-1]
        assert len(got.context) <= len(alone)
        assert got.context.tolist() == alone[: len(got.context)]
        assert len(got.context) >= len(alone) - 2
    assert token_counts(tokenizer, requests) == [max(map(len, whole(tokenizer, request))) for request in requests]


@pytest.mark.parametrize("make", [gpt2_like, llama3_like, llama2_like, unigram])
def test_shared_text_is_tokenised_once(make, monkeypatch):
    """Otherwise the benchmark's few-shot texts would take longer to tokenise than to score."""
    tokenizer = train(make())
    shots = "Question: where?\nAnswer: B\n\n" * 50
    requests = [
        Request(group="g", context=f"{shots}Question: {i} fox\nAnswer:", continuations=(" A", " B")) for i in range(200)
    ]
    characters = 0
    tokenise = encoding.tokenise

    def counting(tokenizer, pieces):
        nonlocal characters
        pieces = list(pieces)
        characters += sum(len(piece.text) for piece in dict.fromkeys(pieces))
        return tokenise(tokenizer, pieces)

    monkeypatch.setattr(encoding, "tokenise", counting)
    encode(tokenizer, requests)
    assert characters < 0.1 * sum(len(request.context) for request in requests)


def test_a_token_across_a_line_start_is_noticed():
    spanning = Tokenizer(models.BPE())
    spanning.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spanning.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    spanning.train_from_iterator(["\nAnswer:"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spanning)
    assert "ĊAnswer:" in tokenizer.get_vocab()
    assert not breaks_at_lines(tokenizer)
    request = Request(group="", context="a b\nc d\nAnswer:", continuations=(" B", " A"))
    encoded = encode(tokenizer, [request])[0]
    assert [*encoded.context, *encoded.continuations[1]] == tokenizer(request.context + " A")["input_ids"]


def test_a_merge_across_the_border_moves_it(tokenizer):
    """ "Answer: " + "Karo" is tokenised as "Answer:" + " Karo": the space is scored with every continuation."""
    request = Request(group="", context="Answer: ", continuations=("Karo", "B"))
    encoded = encode(tokenizer, [request])[0]
    assert tokenizer.decode(encoded.context) == "Answer:"
    assert [tokenizer.decode(end) for end in encoded.continuations] == [" Karo", " B"]


def test_no_context_token_is_refused(tokenizer):
    with pytest.raises(ValueError, match="no token is left"):
        encode(tokenizer, [Request(group="", context=" ", continuations=("Karo", "capital"))])


def test_real_prompts(tokenizer, real_data):
    """Chinese and English exam questions as they are published, odd white space included."""
    requests = []
    for path in (
        sorted((real_data / "mmlu" / "test").glob("*.csv"))[::8]
        + sorted((real_data / "cmmlu" / "test").glob("*.csv"))[::8]
    ):
        lines = path.read_text(encoding="utf-8").splitlines()
        shots = "\n".join(lines[:3])
        requests += [
            Request(group=path.name, context=f"{shots}\n\n{line}\nAnswer:", continuations=(" A", " B"))
            for line in lines[3:43]
        ]
    encoded = encode(tokenizer, requests)
    for request, got in zip(requests, encoded, strict=True):
        assert [*got.context, *got.continuations[1]] == tokenizer(request.context + " B")["input_ids"]
