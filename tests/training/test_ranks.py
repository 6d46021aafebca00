"""Two ranks, and four, equal one: weights, losses and scores for every strategy, with and without accumulation."""

import pytest
import torch

from clmed.training.sharding import World
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config

STRATEGIES = {
    "naive": {},
    "replay": {"replay": {"ratio": 0.25, "from": [*GENERAL, "past"], "memory": 20}},
    "surprise": {"replay": {"ratio": 0.25, "from": [*GENERAL, "past"], "memory": 20, "select": "surprise"}},
    "ewc": {"ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 12}},
    "ewc-separate": {"ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 12, "mode": "separate"}},
    "replay+distill+l2": {
        "replay": {"from": GENERAL},
        "distill": {"strength": 5.0, "from": GENERAL},
        "l2": {"strength": 1.0},
    },
    "der+distill-stored+ewc-model+agem": {
        "der": {"from": [*GENERAL, "past"], "ratio": 0.25, "memory": 21, "alpha": 0.1, "top": 7},
        "distill": {"strength": 5.0, "teacher": "stored", "rows": 75, "top": 7},
        "ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 6, "labels": "model"},
        "agem": {"from": ["english", "past"], "memory": 30, "rows": 5},
    },
    "interleave": {"interleave": {"every": 3, "from": GENERAL, "priority": 2.0}},
    "self_synthesis": {"self_synthesis": {"ratio": 0.25, "rows": 6}},
    "joint": {"joint": {"from": GENERAL, "general_epochs": 0.5}},
    "soup+average": {"soup": {}, "average": {"towards": "base"}},
    "ema": {"ema": {"decay": 0.5}},
    "merge": {"merge": {"method": "ties", "density": 0.5}},
    "freeze": {"freeze": {"layers": 1}},
    "rewarm+curriculum": {
        "rewarm": {"from": GENERAL, "ratio": 0.25, "warmup": 0.3},
        "curriculum": {"of": ["medical"], "reference": ["exam"], "keep": 0.3},
    },
    "lora": {"lora": {"rank": 4}},
    "olora": {"olora": {"rank": 4, "targets": ["q_proj", "v_proj"]}},
    "osft": {"osft": {}},
    "block_expansion": {"block_expansion": {"every": 2}},
    "replay+ewc": {"replay": {"from": GENERAL}, "ewc": {"fisher_from": GENERAL, "rows": 12}},
}
ACCUMULATION = (1, 4)


def _train(strategy, micro_batch_size, world, tokenizer, make_model, stream):
    training = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": micro_batch_size}
    trainer = make_trainer(small_config(strategy, training=training, **stream), make_model(2), tokenizer, world)
    losses = []
    trainer.plugins.insert(0, _Losses(losses))
    trainer.train(trainer.stream)
    return {"losses": losses, "scores": trainer.evaluator.get_all_metrics(), "weights": full_state(trainer.model)}


class _Losses:
    supports_distributed = True

    def __init__(self, losses):
        self.losses = losses

    def after_training_iteration(self, trainer, **kwargs):
        self.losses.append(trainer.log["loss"])


def _all(world, tokenizer, make_model, **stream):
    """Every strategy and accumulation; the micro-batch is what makes the number of micro-batches per rank."""
    return {
        (name, accumulation): _train(strategy, 16 // (accumulation * world.ranks), world, tokenizer, make_model, stream)
        for name, strategy in STRATEGIES.items()
        for accumulation in ACCUMULATION
    }


@pytest.fixture(scope="module")
def one_and_two(tokenizer, make_model, tmp_path_factory):
    """One forked process group runs all of them."""
    two = on_ranks(2, lambda world: _all(world, tokenizer, make_model), tmp_path_factory.mktemp("ranks"))
    return _all(World(), tokenizer, make_model), two


@pytest.mark.parametrize("accumulation", ACCUMULATION)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_equal_one(one_and_two, strategy, accumulation):
    assert_same(*(found[strategy, accumulation] for found in one_and_two), steps=12)


def assert_same(one, two, steps):
    assert len(one["losses"]) == len(two["losses"]) >= steps
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(one["losses"]), rtol=0, atol=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=1e-5)
    assert one["scores"].keys() == two["scores"].keys() != set()
    for name, (_, values) in one["scores"].items():
        assert two["scores"][name][1] == pytest.approx(values, abs=1e-5), name


def test_strategies_differ(one_and_two):
    """The comparison above could not see a strategy that does nothing."""
    one, _ = one_and_two
    naive = one["naive", 1]["weights"]
    for name in set(STRATEGIES) - {"naive"}:
        weights = one[name, 1]["weights"]
        assert weights.keys() != naive.keys() or any(
            not torch.allclose(weights[key], naive[key], atol=1e-4) for key in naive
        ), name


def test_accumulation_changes_nothing(one_and_two):
    one, _ = one_and_two
    for name in STRATEGIES:
        for key, weight in one[name, 1]["weights"].items():
            torch.testing.assert_close(one[name, 4]["weights"][key], weight, rtol=0, atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("shard_ranks", [4, 2])
def test_four_ranks_equal_one(tokenizer, make_model, tmp_path, shard_ranks):
    """One copy of the model, and two; 20 steps."""
    optimizer = {"lr": 1e-3, "warmup": 0.1}
    stream = [
        {"name": "pretraining", "data": "medical", "tokens": 14_000, "optimizer": optimizer},
        {"name": "finetuning", "data": "exam", "tokens": 7000, "optimizer": optimizer},
    ]

    def everything(world):
        return _all(world, tokenizer, make_model, stream=stream)

    four, one = on_ranks(4, everything, tmp_path, shard_ranks), everything(World())
    for key in one:
        assert_same(one[key], four[key], steps=20)
