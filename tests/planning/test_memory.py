"""Planned memory against the tensors of real runs, on one rank and on two."""

import pytest
import torch

from clmed.planning.estimate import Estimate
from clmed.planning.gpus import GPUS
from clmed.shards import local
from clmed.training.sharding import World
from tests.small import GENERAL, make_trainer, on_ranks, small_config

STRATEGIES = {
    "naive": {},
    "ewc": {"ewc": {"fisher_from": GENERAL, "rows": 2}},
    "ewc-separate": {"ewc": {"fisher_from": GENERAL, "rows": 2, "mode": "separate"}},
}
QUIET = {"gain": [], "retention": []}
SHAPE = {"vocab_size": 401, "hidden_size": 40, "intermediate_size": 75}  # uneven on two ranks


def estimate(config, folder, ranks):
    config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(folder)})})
    return Estimate(
        config=config, gpu=GPUS["v100-32gb"], ranks=ranks, utilisation=0.4, per_node=8, write_speed=1e9, given={}
    )


def _bytes(tensors):
    return sum(local(tensor).numel() * local(tensor).element_size() for tensor in tensors)


def _measure(world, tokenizer, make_model):
    """Bytes of what a trainer holds when it has made its last step."""
    found = {}
    for name, strategy in STRATEGIES.items():
        trainer = make_trainer(small_config(strategy, evaluation=QUIET), make_model(**SHAPE), tokenizer, world)
        trainer.train(trainer.stream)
        parameters = list(trainer.model.parameters())
        state = [value for values in trainer.optimizer.state.values() for value in values.values() if value.ndim]
        kept = [tensor for plugin in trainer.plugins for pair in getattr(plugin, "penalties", ()) for tensor in pair]
        found[name] = {
            "weights": _bytes(parameters),
            "gradients": _bytes(parameter.grad for parameter in parameters),
            "optimizer": _bytes(state),
        }
        if kept:
            found[name]["strategies"] = sum(_bytes(values.values()) for values in kept)
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_state_is_within_a_tenth_of_what_a_run_holds(ranks, tmp_path, tokenizer, make_model):
    make_model(**SHAPE).config.save_pretrained(tmp_path)
    if ranks == 1:
        measured = _measure(World(), tokenizer, make_model)
    else:
        measured = on_ranks(2, lambda world: _measure(world, tokenizer, make_model), tmp_path)
    for name, strategy in STRATEGIES.items():
        planned = estimate(small_config(strategy), tmp_path, ranks).state
        assert planned.keys() == measured[name].keys()
        for component, expected in measured[name].items():
            assert planned[component] == pytest.approx(expected, rel=0.1), (name, component)


class Saved:
    """Bytes of the distinct memory that autograd keeps for a backward; parameters do not count."""

    def __init__(self, model):
        self.parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.sizes = {}

    def __call__(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.parameters:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def bytes(self):
        return sum(self.sizes.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_autograd_keeps(checkpointing, tmp_path, tokenizer, make_model):
    """With checkpointing: what is kept between the blocks; the one block that is computed again comes on top."""
    layers = 8
    shape = {"num_hidden_layers": layers, "hidden_size": 64, "intermediate_size": 176, "num_key_value_heads": 4}
    training = {"sequence_length": 64, "tokens_per_step": 1024, "activation_checkpointing": checkpointing}
    model = make_model(**shape).train()
    model.config.save_pretrained(tmp_path)
    config = small_config({}, evaluation=QUIET, training=training)
    trainer = make_trainer(config, model, tokenizer, World())
    batch = trainer.stream[0].batches[0][0]
    saved = Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        hidden = model.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)[0]
    plan = estimate(config, tmp_path, 1)
    planned = plan.activations(checkpointing)
    if checkpointing:
        planned -= plan.activations(False) / layers
    assert hidden.requires_grad
    assert planned == pytest.approx(saved.bytes, rel=0.2)
