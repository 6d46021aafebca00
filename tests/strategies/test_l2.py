"""L2-SP against its closed form, its pull, and its refusal of a second one."""

import pytest
import torch
from clmed.strategies.l2 import L2

from clmed.errors import UserError
from clmed.shards import clone_shards, quadratic_penalty
from clmed.training.sharding import World
from tests.small import make_trainer, small_config

QUIET = {"gain": [], "retention": []}


def trainer_for(strategy, tokenizer, make_model, **changes):
    return make_trainer(small_config(strategy, evaluation=QUIET, **changes), make_model(2), tokenizer, World())


class Watch:
    """The gradients before and after the strategy, with the weights, at each step."""

    supports_distributed = True

    def __init__(self, seen):
        self.seen = seen

    def after_backward(self, trainer, **kwargs):
        named = dict(trainer.model.named_parameters())
        self.seen.append({name: (p.grad.clone(), p.detach().clone()) for name, p in named.items()})


def test_the_gradient_is_the_closed_form_and_each_experience_has_its_anchor(tokenizer, make_model):
    trainer = trainer_for({"l2": {"strength": 0.3}}, tokenizer, make_model)
    before, after = [], []
    trainer.plugins.insert(0, Watch(before))
    trainer.plugins.insert(2, Watch(after))
    trainer.train(trainer.stream)
    steps = len(trainer.stream[0].batches)
    assert len(before) > steps > 3
    for step, (one, other) in enumerate(zip(before, after, strict=True)):
        anchor = before[steps if step >= steps else 0]
        for name, (gradient, weight) in one.items():
            closed = gradient + 0.3 * (weight - anchor[name][1])
            torch.testing.assert_close(other[name][0], closed, rtol=0, atol=1e-7)
    assert any(
        not torch.equal(one[name][0], other[name][0]) for name in before[0] for one, other in [(before[-1], after[-1])]
    )


def test_the_more_strength_the_nearer(tokenizer, make_model):
    distances = []
    for strength in (0.0, 1.0, 100.0):
        trainer = trainer_for({"l2": {"strength": strength}}, tokenizer, make_model)
        start = clone_shards(trainer.model)
        trainer.train([trainer.stream[0]])
        distances.append(quadratic_penalty(trainer.model, start, 1.0))
    assert distances[0] > 1.5 * distances[1] > 1.5 * distances[2]


def test_a_strength_that_is_none():
    with pytest.raises(UserError, match="at least 0"):
        L2(strength=-1.0)
