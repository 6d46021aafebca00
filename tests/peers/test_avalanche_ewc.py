"""EWC against Avalanche's EWCPlugin: the same Fisher and the same weights after each of three experiences.

Avalanche adds lambda * sum F (w - a)^2 to the loss, without the 1/2 of the paper: our strength is 2 * lambda.
"""

from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.logging import BaseLogger
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin
from clmed.strategies.ewc import EWC
from torch import nn
from torch.utils.data import TensorDataset

from clmed.shards import mean_squared_gradients

STEPS, EXPERIENCES, LAMBDA, RATE = 20, 3, 5.0, 0.05


class Data(TensorDataset):
    """One sample a step, in order; `targets` is what Avalanche looks for."""

    def __init__(self, experience):
        generator = torch.Generator().manual_seed(experience)
        self.targets = torch.randint(0, 4, (STEPS,), generator=generator).tolist()
        super().__init__(torch.randn(STEPS, 6, generator=generator), torch.tensor(self.targets))


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))


def by_avalanche(data, mode, decay):
    """The plugin after training, and the weights after each experience."""
    model, weights = small_model(), []
    plugin = EWCPlugin(LAMBDA, mode, decay_factor=decay)
    naive = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=1,
        plugins=[plugin],
        evaluator=EvaluationPlugin(loggers=[BaseLogger()]),
    )
    scenario = benchmark_from_datasets(train=[as_classification_dataset(each) for each in data])
    for experience in scenario.streams["train"]:
        naive.train(experience, shuffle=False, eval_streams=[])
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    return plugin, weights


def by_clmed(data, mode, decay):
    """The strategy after training, and the weights after each experience, in a loop of plain SGD."""
    model, weights = small_model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    ewc = EWC(strength=2 * LAMBDA, fisher_from=[], rows=STEPS, mode=mode, decay=decay or 1.0)

    def set_gradient(sample):
        model.zero_grad()
        nn.functional.cross_entropy(model(sample[0][None]), sample[1][None]).backward()

    trainer = SimpleNamespace(model=model, is_last_experience=False, log={})
    for samples in data:
        trainer.experience = SimpleNamespace(config=SimpleNamespace(data=["own"]))
        trainer.fisher = lambda names, samples=samples, **settings: mean_squared_gradients(
            model, list(samples), set_gradient
        )
        ewc.before_training_exp(trainer)
        for step, sample in enumerate(samples):
            trainer.clock = SimpleNamespace(train_exp_iterations=step)
            set_gradient(sample)
            ewc.after_backward(trainer)
            optimizer.step()
        ewc.after_training_exp(trainer)
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    return ewc, weights


@pytest.mark.parametrize(("mode", "decay"), [("separate", None), ("online", 0.7)])
def test_the_same_fisher_and_the_same_weights(mode, decay):
    data = [Data(experience) for experience in range(EXPERIENCES)]
    plugin, theirs = by_avalanche(data, mode, decay)
    ewc, ours = by_clmed(data, mode, decay)
    for experience in range(EXPERIENCES):
        for one, other in zip(theirs[experience], ours[experience], strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-5)
    kept = range(EXPERIENCES) if mode == "separate" else [EXPERIENCES - 1]
    for (fisher, anchor), experience in zip(ewc.penalties, kept, strict=True):
        for name, importance in plugin.importances[experience].items():
            torch.testing.assert_close(fisher[name], importance.data, rtol=1e-5, atol=1e-9)
            torch.testing.assert_close(anchor[name], plugin.saved_params[experience][name].data, rtol=0, atol=1e-5)
    assert not torch.allclose(ours[-1][0], ours[0][0], atol=1e-3), "nothing was learned after the first experience"
