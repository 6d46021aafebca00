import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from clmed.config import SourceConfig
from clmed.data import packing
from clmed.data.formats import texts
from clmed.data.packing import IGNORED, Losses, pack
from clmed.data.sources import records
from clmed.data.tokenising import Document, encode
from tests.conftest import TEXTS

PAD = 1
LENGTH = 48


def document(size: int, seed: int, taught_from: int = 0) -> Document:
    generator = np.random.default_rng(seed)
    weights = (np.arange(size) >= max(1, taught_from)).astype(np.float32) * (1 + seed % 3)
    ids = generator.integers(2, 300, size).astype(np.int32)
    return Document(ids=ids, weights=weights, bytes=generator.integers(0, 5, size).astype(np.int32))


def documents(number: int = 60, longest: int = 70) -> list[Document]:
    sizes = np.random.default_rng(7).integers(2, longest, number)
    return [document(int(size), seed, taught_from=int(size) // 2) for seed, size in enumerate(sizes)]


def segments(row) -> list[slice]:
    """The documents (or parts) of a row, and its padding: positions start at 0 in each and go up by one."""
    starts = np.flatnonzero(row.position_ids == 0).tolist()
    ends = [*starts[1:], len(row.position_ids)]
    for start, end in zip(starts, ends, strict=True):
        assert np.array_equal(row.position_ids[start:end], np.arange(end - start))
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def test_concatenation_fills_every_row_and_keeps_every_token():
    every = documents()
    rows = list(pack(every, LENGTH, PAD, split=True))
    assert all(row.tokens == LENGTH for row in rows[:-1])
    joined = np.concatenate([row.input_ids[: row.tokens] for row in rows])
    assert np.array_equal(joined, np.concatenate([each.ids for each in every]))
    assert sum(row.bytes for row in rows) == sum(each.bytes.sum() for each in every)
    # The labels are the supervised ids, except where a document or a row begins.
    expected = np.concatenate([np.where(each.supervised, each.ids, IGNORED) for each in every])
    expected[::LENGTH] = IGNORED
    assert np.array_equal(np.concatenate([row.labels[: row.tokens] for row in rows]), expected)
    # Positions start again at each document and each row.
    starts = set(np.cumsum([0, *map(len, every)])[:-1].tolist()) | set(range(0, len(joined), LENGTH))
    positions = np.concatenate([row.position_ids[: row.tokens] for row in rows])
    assert set(np.flatnonzero(positions == 0).tolist()) == starts


def test_documents_kept_whole_are_each_in_one_place():
    every = documents(longest=LENGTH)
    rows = list(pack(every, LENGTH, PAD, split=False))
    found = [
        (row.input_ids[part], row.labels[part], row.weights[part])
        for row in rows
        for part in segments(row)
        if part.start < row.tokens
    ]
    assert len(found) == len(every)
    for each in every:
        (labels, weights), *others = [given for ids, *given in found if np.array_equal(ids, each.ids)]
        assert not others and np.array_equal(labels, np.where(each.supervised, each.ids, IGNORED))
        assert np.array_equal(weights, each.weights)
    assert sum(row.tokens for row in rows) == sum(map(len, every))
    assert sum(row.bytes for row in rows) == sum(each.bytes.sum() for each in every)
    assert sum(row.supervised for row in rows) == sum(each.supervised.sum() for each in every)


@pytest.mark.parametrize("split", [True, False])
def test_every_row_is_consistent(split):
    for row in pack(documents(), LENGTH, PAD, split):
        assert [len(each) for each in (row.input_ids, row.position_ids, row.labels)] == [LENGTH] * 3
        assert {each.dtype for each in (row.input_ids, row.position_ids, row.labels)} == {np.dtype(np.int32)}
        parts = segments(row)
        assert all(row.labels[part.start] == IGNORED for part in parts)
        if row.tokens < LENGTH:
            assert parts[-1] == slice(row.tokens, LENGTH)
            assert (row.input_ids[row.tokens :] == PAD).all() and (row.labels[row.tokens :] == IGNORED).all()
        taught = row.labels != IGNORED
        assert row.supervised == taught.sum() and np.array_equal(row.labels[taught], row.input_ids[taught])
        assert np.array_equal(row.weights > 0, taught) and row.mass == row.weights.sum()


def test_a_document_longer_than_the_row_is_cut_and_counted():
    losses = Losses()
    every = [document(LENGTH + 1, 0), document(LENGTH, 1), document(2 * LENGTH, 2, taught_from=LENGTH), document(1, 3)]
    rows = list(pack(every, LENGTH, PAD, split=False, losses=losses))
    assert losses == Losses(cut=2, untaught=2)  # the third's answer begins after the cut; one token teaches nothing
    assert {tuple(row.input_ids) for row in rows} == {tuple(each.ids[:LENGTH]) for each in every[:2]}
    assert sum(row.bytes for row in rows) == sum(each.bytes[:LENGTH].sum() for each in every[:2])


def test_best_fit_leaves_little_padding_and_bounded_memory(monkeypatch):
    monkeypatch.setattr(packing, "WINDOW", 2**16)
    sizes = np.random.default_rng(0).integers(2, 200, 6_000)
    consumed = 0

    def stream():
        nonlocal consumed
        for seed, size in enumerate(sizes):
            consumed += int(size)
            yield document(int(size), seed)

    packed, most = 0, 0
    rows = 0
    for row in pack(stream(), 256, PAD, split=False):
        rows += 1
        packed += row.tokens
        most = max(most, consumed - packed)
    assert packed == sizes.sum()
    fewest = -(-packed // 256)
    assert packed / (rows * 256) > 0.999 and rows - fewest < 10  # 0.74 when each row takes the next documents
    assert most < 2**16 + 256 < packed / 5  # what is waiting


def exact(sizes: list[int], length: int) -> int:
    """The fewest rows that hold documents of these sizes: every way to fill the row of the longest, tried."""
    if not sizes:
        return 0
    first, *rest = sorted(sizes, reverse=True)
    best = len(sizes)
    for number in range(2 ** len(rest)):
        chosen = [size for place, size in enumerate(rest) if number >> place & 1]
        if first + sum(chosen) <= length:
            left = [size for place, size in enumerate(rest) if not number >> place & 1]
            best = min(best, 1 + exact(left, length))
    return best


def test_few_documents_take_about_as_few_rows_as_can_be():
    more = []
    for seed in range(60):
        sizes = np.random.default_rng(seed).integers(2, 30, 7).tolist()
        rows = list(pack([document(size, n) for n, size in enumerate(sizes)], 32, PAD, split=False))
        more.append(len(rows) - exact(sizes, 32))
    assert set(more) <= {0, 1} and sum(more) <= 3


@pytest.mark.parametrize("target", ["answer", "answer_then_explanation"])
def test_real_exams_fill_their_rows(real_data, target):
    """With a vocabulary made for them, as a Chinese model has one: 99.6 and 99.9 % of positions, no document split."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    source = SourceConfig(path="x", format="exam", target=target)
    every = [
        pieces for _, record in records(source, real_data / "cmexam" / "train.csv") if (pieces := texts(source, record))
    ]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=4096, special_tokens=["</s>"], show_progress=False)
    bpe.train_from_iterator(["".join(text for text, _ in pieces) for pieces in every[::10]], trainer)
    made = encode(every, PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>"))
    losses = Losses()
    rows = list(pack(made, 1024, PAD, split=False, losses=losses))
    tokens = sum(row.tokens for row in rows)
    assert tokens == sum(min(1024, len(each)) for each in made) and losses.cut < 50 and not losses.untaught
    assert tokens / (len(rows) * 1024) > 0.99 and len(rows) - -(-tokens // 1024) < 10


def test_packing_is_deterministic():
    first, second = (list(pack(documents(), LENGTH, PAD, split=False)) for _ in range(2))
    assert [row.input_ids.tolist() for row in first] == [row.input_ids.tolist() for row in second]


def logits(model, ids, positions=None):
    with torch.no_grad():
        arguments = {} if positions is None else {"position_ids": torch.tensor(positions[None].astype(np.int64))}
        return model(input_ids=torch.tensor(ids[None].astype(np.int64)), use_cache=False, **arguments).logits[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("split", [True, False])
def test_a_packed_document_sees_itself_alone(make_model, tokenizer, split, attention):
    source = SourceConfig(path="x", format="text")
    every = encode([texts(source, {"text": text}) for text in TEXTS * 2], tokenizer)
    model = make_model(attn_implementation=attention)
    compared, apart = 0, 0
    for row in pack(every, 96, tokenizer.pad_token_id, split):
        together = logits(model, row.input_ids, row.position_ids)
        leaking = logits(model, row.input_ids, np.arange(96))
        parts = segments(row)
        for part in parts:
            alone = logits(model, row.input_ids[part])
            assert (together[part] - alone).abs().max() < 1e-5
            compared += 1
            if part.start:  # the check can fail: without positions that start again the documents do see each other
                apart += bool((leaking[part] - alone).abs().max() > 1e-3)
    assert compared > 10 and apart > 5


def test_the_loss_of_packed_documents_is_that_of_the_documents(make_model, tokenizer):
    source = SourceConfig(path="x", format="exam", target="answer_then_explanation")
    question = {"Question": "桂枝汤的君药是", "Options": "A 桂枝\nB 芍药", "Explanation": "桂枝辛温。"}
    every = encode([texts(source, {**question, "Answer": answer}) for answer in ("A", "B", "AB")], tokenizer)
    model = make_model()
    total = 0.0
    for each in every:
        log_probabilities = logits(model, each.ids).log_softmax(-1)
        taught = np.flatnonzero(each.supervised)
        total -= float(log_probabilities[taught - 1, each.ids[taught]].sum())
    rows = list(pack(every, 400, tokenizer.pad_token_id, split=False))
    assert len(rows) == 1
    inputs = {name: torch.tensor(getattr(rows[0], name)[None].astype(np.int64)) for name in ("input_ids", "labels")}
    positions = torch.tensor(rows[0].position_ids[None].astype(np.int64))
    with torch.no_grad():
        loss = model(**inputs, position_ids=positions, use_cache=False).loss
    assert loss.item() * rows[0].supervised == pytest.approx(total, rel=1e-5)
