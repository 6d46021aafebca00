"""What `clmed strategies new` writes: the starting point of a strategy, and its test."""

STRATEGY = '''"""my_method: say here what it does."""

from clmed.shards import add_to_gradients, clone_shards
from clmed.strategy import Strategy


class MyMethod(Strategy):
    """Pull the weights towards those before the experience.

    Adds the gradient of  strength/2 * sum (w - a)^2  where a are the weights before the experience.

    Source: Li et al., 2018, arXiv 1802.01483
    """

    def __init__(self, *, strength: float = 0.01):  # what may stand in the YAML, with types and defaults
        self.strength, self.anchor = strength, {}

    def before_training_exp(self, trainer, **kwargs):  # once, before each experience
        self.anchor = clone_shards(trainer.model)

    def after_backward(self, trainer, **kwargs):  # every step, when the gradients are final
        add_to_gradients(trainer.model, self.anchor, self.strength)

    def cost(self, size):  # for `clmed plan`: one more copy of the weights
        return {"copies": 1}

    def state_dict(self):  # what a run that was killed must find again
        return {"anchor": self.anchor}

    def load_state_dict(self, state):
        self.anchor = state["anchor"]
'''

TEST = '''"""The gradient that MyMethod adds, against the formula."""

from types import SimpleNamespace

import torch

from my_method import MyMethod


def test_it_adds_its_gradient():
    model = torch.nn.Linear(3, 2)
    trainer, method = SimpleNamespace(model=model), MyMethod(strength=0.5)
    method.before_training_exp(trainer)
    for parameter in model.parameters():
        parameter.data += 1.0  # as if it had been trained
        parameter.grad = torch.zeros_like(parameter)
    method.after_backward(trainer)
    for parameter in model.parameters():
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 0.5))
'''
