"""The optimizer's state across experiences: reset or carried, and carried through an interruption."""

import copy

import pytest
import torch

from clmed.errors import UserError
from clmed.training.checkpoint import Checkpoints
from clmed.training.optimizer import carry_on, make_optimizer
from clmed.training.sharding import World
from tests.configs import complaint, make_folder
from tests.small import full_state, make_trainer, on_ranks, small_config
from tests.training.test_checkpoint import Power, PowerCutError
from tests.training.test_trainer import QUIET, plain_step


def stream(state):
    first = {"lr": 1e-3, "warmup": 0.1, "weight_decay": 0.1}
    second = {"lr": 5e-4, "warmup": 0.0, "decay": "constant", "weight_decay": 0.3, "betas": [0.8, 0.9], "state": state}
    return [
        {"name": "a", "data": "medical", "tokens": 6000, "optimizer": first},
        {"name": "b", "data": "exam", "tokens": 4000, "optimizer": second},
    ]


def trainer_of(state, world, tokenizer, make_model, **extra):
    config = small_config({}, stream=stream(state), evaluation=QUIET)
    return make_trainer(config, make_model(1), tokenizer, world, **extra)


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_equals_one_adamw_over_both_experiences_or_two(state, tokenizer, make_model):
    """A bare loop with torch's own AdamW, whose settings are changed by hand between the experiences."""
    from clmed.training.schedule import learning_rate

    trainer = trainer_of(state, World(), tokenizer, make_model)
    peer = make_model(1)
    groups = [[p for p in peer.parameters() if p.ndim > 1], [p for p in peer.parameters() if p.ndim == 1]]
    optimizer = None
    for experience in trainer.stream:
        settings = experience.config.optimizer
        if optimizer is None or state == "reset":
            optimizer = torch.optim.AdamW([{"params": group} for group in groups])
        for group, decay in zip(optimizer.param_groups, (settings.weight_decay, 0.0), strict=True):
            group |= {"betas": settings.betas, "weight_decay": decay}
        for step in range(len(experience.batches)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, len(experience.batches), settings)
            plain_step(peer, optimizer, experience.batches[step], settings.clip)
    trainer.train(trainer.stream)
    found = full_state(trainer.model)
    for name, weight in full_state(peer).items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=3e-5)
    steps = {int(value["step"]) for value in trainer.optimizer.state.values()}
    assert steps == {sum(len(e.batches) for e in trainer.stream[state == "reset" :])}


def carried_run(folder, cut, world, tokenizer, make_model):
    """The weights of a run that carries its optimizer; with `cut`, of one whose power is cut there."""
    checkpoints = Checkpoints(folder, world=world)

    def trainer():
        return trainer_of("carry", world, tokenizer, make_model, checkpoints=checkpoints, save_every=3)

    if cut is None:
        whole = trainer()
        whole.train(whole.stream)
        return full_state(whole.model), 0
    broken = trainer()
    broken.plugins.insert(0, Power(*cut))
    with pytest.raises(PowerCutError):
        broken.train(broken.stream)
    checkpoints.wait()
    found = checkpoints.latest()
    again = trainer()
    again.train(again.stream, found=found)
    return full_state(again.model), found.values["place"]


CUTS = {"between the experiences": ("before_training_exp", 2), "in the second": ("before_update", 11)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_goes_on_bit_for_bit(ranks, tmp_path, tokenizer, make_model):
    def every(world):
        cuts = [None, *CUTS.values()]
        return [carried_run(tmp_path / str(i), cut, world, tokenizer, make_model) for i, cut in enumerate(cuts)]

    (whole, _), (between, at), (inside, at_inside) = every(World()) if ranks == 1 else on_ranks(2, every, tmp_path)
    assert (at["index"], at["first_step"]) == (1, 0), "the cut was to come between the experiences"
    assert at_inside["index"] == 1 and at_inside["first_step"] > 0
    for name, weight in whole.items():
        assert torch.equal(between[name], weight) and torch.equal(inside[name], weight), name


def test_another_structure_is_refused(make_model):
    settings = small_config({}).stream[0].optimizer
    model = make_model()
    optimizer = make_optimizer(model, settings)
    assert carry_on(optimizer, model, settings) is optimizer
    with pytest.raises(UserError, match="trainable parameters have changed"):
        carry_on(optimizer, copy.deepcopy(model), settings)
    model.model.embed_tokens.requires_grad_(False)
    with pytest.raises(UserError, match="trainable parameters have changed"):
        carry_on(optimizer, model, settings)
    with pytest.raises(UserError, match="no experience came before"):
        carry_on(None, model, settings)


def test_the_first_experience_and_the_base_have_nothing_to_carry(tmp_path, monkeypatch):
    make_folder(tmp_path, monkeypatch)
    assert "no experience comes before the first" in complaint("stream.0.optimizer.state=carry")
    assert "nothing comes before the pretraining" in complaint("model.build.pretrain.optimizer.state=carry")
