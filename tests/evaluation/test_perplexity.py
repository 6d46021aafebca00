"""Perplexity over packed rows against each document alone."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from clmed.evaluation.perplexity import losses_by_row, perplexity


@pytest.fixture(scope="module")
def documents() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(5, 250, size=length) for length in (7, 9, 14, 3, 20, 10, 5, 5, 6)]


@pytest.fixture(scope="module")
def rows(documents) -> Dataset:
    """Rows of 24 tokens that hold one to three of the documents, then padding; half the tokens are supervised."""
    packed: list[dict[str, list[int]]] = []
    for members in ((0, 1), (2, 3), (4,), (5, 6, 7), (8,)):
        row: dict[str, list[int]] = {"input_ids": [], "position_ids": [], "labels": []}
        for ids in (*(documents[member] for member in members), None):
            padding = 24 - len(row["input_ids"])
            tokens = [1] * padding if ids is None else ids.tolist()
            labels = [-100] * padding if ids is None else supervised(ids)
            row["input_ids"] += tokens
            row["position_ids"] += range(len(tokens))
            row["labels"] += labels
        packed.append(row)
    return Dataset.from_list(packed).with_format("numpy")


def supervised(ids: np.ndarray) -> list[int]:
    return [token if place and place % 2 else -100 for place, token in enumerate(ids.tolist())]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
def test_equals_documents_alone(make_model, documents, rows, attention, batch_tokens):
    model = make_model(attn_implementation=attention)
    nats, count = 0.0, 0
    for ids in documents:
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0, :-1]
        labels = torch.tensor(supervised(ids))[1:]
        nats += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels != -100).sum())
    model.train()
    measured, tokens = perplexity(model, rows, batch_tokens=batch_tokens)
    assert tokens == count
    assert measured / tokens == pytest.approx(nats / count, abs=1e-5)
    assert model.training
    by_row = losses_by_row(model, rows, batch_tokens=batch_tokens)
    alone = [perplexity(model, rows.select([index]), batch_tokens=batch_tokens) for index in range(len(rows))]
    np.testing.assert_allclose(by_row, alone, rtol=1e-5)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(make_model, rows, tokenizer):
    model = make_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    nats, tokens = perplexity(model, rows, batch_tokens=100)
    assert np.exp(nats / tokens) == pytest.approx(len(tokenizer), rel=1e-5)


def test_no_rows(make_model):
    assert perplexity(make_model(), [], batch_tokens=100) == (0.0, 0)
