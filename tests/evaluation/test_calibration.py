"""Format or knowledge, on models whose loss is planted: a shifted letter prior, and damaged knowledge."""

import copy

import numpy as np
import pytest
import torch

from clmed.evaluation.calibration import calibrated, calibration_error, calibration_rows
from clmed.evaluation.scoring import Request, score
from clmed.results.drops import against_base, distance

LETTERS = "ABCD"


@pytest.fixture(scope="module")
def exam(make_model, tokenizer):
    """A model with a bias on its logits, 200 questions, and right answers that it mostly knows."""
    model = make_model(initializer_range=0.3)
    head = torch.nn.Linear(32, len(tokenizer), bias=True)
    head.weight.data, head.bias.data = model.lm_head.weight.data * 3, torch.zeros(len(tokenizer))
    model.lm_head = head
    requests = [
        Request(
            group="", context=f"Question: {n} {n * n % 97}?\nAnswer:", continuations=tuple(f" {x}" for x in LETTERS)
        )
        for n in range(200)
    ]
    tokens = [tokenizer(f" {x}")["input_ids"][-1] for x in LETTERS]
    values = score(model, tokenizer, requests, batch_tokens=4000)
    head.bias.data[tokens] -= torch.tensor(np.mean(values, axis=0), dtype=torch.float32)  # about even to begin with
    values = score(model, tokenizer, requests, batch_tokens=4000)
    draw = np.random.default_rng(0)
    gold = [x if draw.random() < 0.8 else draw.choice(list(LETTERS)) for x in (LETTERS[v.argmax()] for v in values)]
    return model, requests, gold, tokens


def measured(model, tokenizer, requests, gold):
    values = score(model, tokenizer, requests, batch_tokens=4000)
    answers = [tuple(LETTERS)] * len(gold)
    said = {"accuracy": [LETTERS[v.argmax()] for v in values], "accuracy_calibrated": calibrated(answers, values)}
    whole = [
        {
            "category": "all",
            "metric": metric,
            "score": float(np.mean([p == g for p, g in zip(found, gold, strict=True)])),
        }
        for metric, found in said.items()
    ]
    return [*({**row, "questions": len(gold)} for row in whole), *calibration_rows(answers, values, gold)]


def test_planted(exam, tokenizer):
    model, requests, gold, tokens = exam
    base = measured(model, tokenizer, requests, gold)

    shifted = copy.deepcopy(model)
    shifted.lm_head.bias.data[tokens[0]] += 6.0
    damaged = copy.deepcopy(model)
    for parameter in damaged.model.layers.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))

    def losses(other):
        now = measured(other, tokenizer, requests, gold)
        found = {row["metric"]: row["score"] for row in [*now, *against_base(base, now)]}
        assert found["drop_format"] + found["drop_knowledge"] == pytest.approx(base[0]["score"] - now[0]["score"])
        return found

    form, knowledge = losses(shifted), losses(damaged)
    assert form["drop_format"] > 0.3 and form["drop_knowledge"] == 0
    assert form["letter_shift_from_base"] > 0.4 and form["letter_shift"] > 0.4
    assert knowledge["drop_knowledge"] > 0.3 and knowledge["drop_format"] < 0.5 * knowledge["drop_knowledge"]


def test_a_shift_of_the_prior_changes_nothing():
    """However large; also where some questions lack a letter. The same for two letters in one step, by hand."""
    draw = np.random.default_rng(0)
    answers = [tuple("ABCD"[: draw.integers(2, 5)]) for _ in range(50)]
    values = [draw.normal(size=len(letters)) * 3 for letters in answers]
    shift = np.array([9.0, 0.0, -4.0, 1.0])
    found = calibrated(answers, values)
    assert found == calibrated(answers, [v + shift[: len(v)] for v in values])
    assert len(set(found)) == 4
    assert calibrated(["AB"] * 2, [np.log([0.9, 0.1]), np.log([0.6, 0.4])]) == ["A", "B"]


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.55, 1.0]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, right) == pytest.approx((abs(2 - 2.9) + abs(1 - 0.55)) / 4)
    assert distance({"A": 1.0}, {"B": 1.0}) == 1.0
