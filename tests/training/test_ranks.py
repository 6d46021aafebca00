"""Two ranks, and four, equal one: weights, losses and scores for every strategy, with and without accumulation and
activations that are computed again; and bf16 is close to fp32."""

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
IN_BF16 = ("replay+ewc", "replay+distill+l2", "lora", "osft")  # the others, too, where there is time


def _train(strategy, world, given, *, accumulation, anew=None, precision="fp32", **config):
    """What comes of a strategy; anew: whether activations are computed again, by default where there is accumulation.

    accumulation: micro-batches of a step on each rank.
    """
    tokenizer, make_model = given
    training = {
        "sequence_length": 64,
        "tokens_per_step": 1024,
        "micro_batch_size": 16 // (accumulation * world.ranks),
        "activation_checkpointing": accumulation > 1 if anew is None else anew,
        "precision": precision,
    }
    trainer = make_trainer(small_config(strategy, training=training, **config), make_model(2), tokenizer, world)
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


def _each(world, given, names=tuple(STRATEGIES), **how):
    return {name: _train(STRATEGIES[name], world, given, **how) for name in names}


def _half(world, given, names):
    return _each(world, given, names, accumulation=1, precision="bf16", evaluation={"gain": [], "retention": []})


@pytest.fixture(scope="module")
def given(tokenizer, make_model):
    return tokenizer, make_model


@pytest.fixture(scope="module")
def one(given):
    """Every strategy on one rank, a step's rows all at once."""
    return _each(World(), given, accumulation=1)


@pytest.fixture(scope="module")
def two(given, tmp_path_factory):
    """On two ranks with four micro-batches each, and some in bf16: one forked process group runs all of them."""
    folder = tmp_path_factory.mktemp("ranks")
    return on_ranks(2, lambda world: (_each(world, given, accumulation=4), _half(world, given, IN_BF16)), folder)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_with_accumulation_and_activation_checkpointing_equal_one(one, two, strategy):
    assert_same(one[strategy], two[0][strategy], steps=12)


@pytest.mark.parametrize("strategy", IN_BF16)
def test_bf16_is_close_to_fp32(one, two, strategy):
    assert_close(one[strategy], two[1][strategy])


def test_strategies_differ(one):
    """The comparison above could not see a strategy that does nothing."""
    naive = one["naive"]["weights"]
    for name in set(STRATEGIES) - {"naive"}:
        weights = one[name]["weights"]
        assert weights.keys() != naive.keys() or any(
            not torch.allclose(weights[key], naive[key], atol=1e-4) for key in naive
        ), name


@pytest.mark.full
def test_each_of_these_alone_changes_nothing(one, given, tmp_path):
    def everything(world):
        hows = [{"accumulation": 4, "anew": False}, {"accumulation": 1, "anew": True}]
        return [_each(world, given, **how) for how in [{"accumulation": 1}, *hows]]

    for found in [*on_ranks(2, everything, tmp_path), *everything(World())[1:]]:
        for name in STRATEGIES:
            assert_same(one[name], found[name], steps=12)


@pytest.mark.full
def test_every_strategy_in_bf16_is_close_to_fp32(one, given, tmp_path):
    found = on_ranks(2, lambda world: _half(world, given, tuple(STRATEGIES)), tmp_path)
    for name in STRATEGIES:
        assert_close(one[name], found[name])


@pytest.mark.full
@pytest.mark.parametrize("shard_ranks", [4, 2])
def test_four_ranks_equal_one(given, tmp_path, shard_ranks):
    """One copy of the model, and two; 20 steps."""
    optimizer = {"lr": 1e-3, "warmup": 0.1, "weight_decay": 0.0}
    stream = [
        {"name": "pretraining", "data": "medical", "tokens": 14_000, "optimizer": optimizer},
        {"name": "finetuning", "data": "exam", "tokens": 7000, "optimizer": optimizer},
    ]
    four = on_ranks(4, lambda world: _each(world, given, accumulation=2, stream=stream), tmp_path, shard_ranks)
    one = _each(World(), given, accumulation=1, stream=stream)
    for name in STRATEGIES:
        # AdamW divides by the root of the second moment, and so makes a whole step of a gradient that is about as large
        # as its rounding: a token that came once had one of 5e-9 in one of its numbers, rounded to 1e-9, and ended
        # 3.4e-5 away. (In one process, with other micro-batches, that number is 1.8e-5 away from itself.)
        assert_same(one[name], four[name], steps=20, within=1e-4)


def assert_same(one, two, steps, within=1e-5):
    assert len(one["losses"]) == len(two["losses"]) >= steps
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(one["losses"]), rtol=0, atol=1e-5)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=0, atol=within)
    differences = torch.cat([(two["weights"][name] - weight).flatten() for name, weight in one["weights"].items()])
    assert differences.square().mean().sqrt() < 1e-6
    assert one["scores"].keys() == two["scores"].keys() != set()
    for name, (_, values) in one["scores"].items():
        assert two["scores"][name][1] == pytest.approx(values, abs=1e-5), name


def assert_close(one, half):
    """The mean loss, as what a strategy reads or writes itself may be something else; what is stored stays fp32."""
    losses = [torch.tensor(found["losses"]) for found in (half, one)]
    torch.testing.assert_close(losses[0].mean(), losses[1].mean(), rtol=2e-2, atol=0)
    assert not torch.equal(*losses)
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in half["weights"].values())
