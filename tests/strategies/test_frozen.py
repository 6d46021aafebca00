"""Frozen and freeze: what does not train stays as it is, bit for bit, and costs what it says."""

import pytest
import torch

from clmed.errors import UserError
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World
from tests.small import full_state, make_trainer, small_config

ENGLISH = {"gain": [], "retention": [{"perplexity": "english"}]}
FROZEN = ("model.embed_tokens.", "model.layers.0.")


def test_frozen_measures_once_and_trains_nothing(tokenizer, make_model):
    trainer = make_trainer(small_config({"frozen": {}}, evaluation=ENGLISH), make_model(1), tokenizer, World())
    (benchmark,) = trainer.benchmarks[0]
    measured, measure = [], benchmark.measure
    benchmark.measure = lambda model: measured.append(1) or measure(model)
    trainer.train(trainer.stream)
    for name, weight in full_state(make_model(1)).items():
        assert torch.equal(full_state(trainer.model)[name], weight)
    _, scores = next(v for n, v in trainer.evaluator.get_all_metrics().items() if "nats" in n)
    assert len(scores) == 3 and len(set(scores)) == 1 and len(measured) == 1
    assert (trainer.tokens, trainer.clock.train_iterations, trainer.point) == (0, 0, 3)


def test_freeze_trains_the_rest_and_holds_state_for_that_alone(tokenizer, make_model, tmp_path):
    def trainer():
        checkpoints = Checkpoints(tmp_path, world=World())
        config = small_config({"freeze": {"layers": 1}}, evaluation={"gain": [], "retention": []})
        return make_trainer(config, make_model(1), tokenizer, World(), checkpoints=checkpoints, save_every=3)

    whole = trainer()
    whole.train(whole.stream)
    base, found = full_state(make_model(1)), full_state(whole.model)
    for name, weight in base.items():
        assert torch.equal(found[name], weight) == name.startswith(FROZEN), name
    trains = {id(p) for name, p in whole.model.named_parameters() if not name.startswith(FROZEN)}
    assert {id(parameter) for parameter in whole.optimizer.state} == trains


def test_freezing_every_layer_is_refused(tokenizer, make_model):
    """Before any work; of a model whose shape is known at once, with the configuration."""
    trainer = make_trainer(small_config({"freeze": {"layers": 2}}), make_model(1), tokenizer, World())
    with pytest.raises(UserError, match="freeze: the model has 2 layers, so at most 1 can be frozen"):
        trainer.structure.refuse_impossible([])
    trainer = make_trainer(small_config({"freeze": {"layers": 1}}), make_model(1), tokenizer, World())
    trainer.structure.refuse_impossible([])


def test_the_plan_counts_what_trains():
    from clmed.planning import shapes
    from tests.planning.test_plan import plan

    naive, made = plan(), plan("strategy={freeze: {layers: 10}}")
    shape = shapes.of(made.config.model)
    frozen = 10 * shapes.numbers(shape.block) + 32000 * 5120
    left = 1 - frozen / 13_015_864_320
    assert made.state["weights"] == naive.state["weights"]
    for part in ("gradients", "optimizer"):
        assert made.state[part] == pytest.approx(left * naive.state[part])
    assert made.checkpoint == pytest.approx(4 * 13_015_864_320 * (1 + 2 * left))
    copies = plan("strategy={freeze: {layers: 10}, soup: {}}").state
    assert copies["strategies"] == pytest.approx(copies["gradients"])
