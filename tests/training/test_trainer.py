"""The training step against plain PyTorch, and what happens when in a stream."""

import copy
import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy

from clmed.data.batches import IGNORED
from clmed.training.loss import row_losses
from clmed.training.precision import DivergedError
from clmed.training.schedule import learning_rate
from clmed.training.sharding import World
from tests.small import GENERAL, full_state, make_trainer, small_config

REPLAY = {"replay": {"ratio": 0.25, "from": GENERAL}}
QUIET = {"gain": [], "retention": []}


class Recorder:
    """A plugin that remembers every callback it gets."""

    supports_distributed = True

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name.startswith(("before_", "after_")):
            return lambda trainer, **kwargs: self.calls.append((name, trainer))
        raise AttributeError(name)


def documents(batch):
    """(ids, labels, weight) of each document in a micro-batch: a document begins where positions restart."""
    for ids, positions, labels, weight in zip(
        batch["input_ids"], batch["position_ids"], batch["labels"], batch["weight"], strict=True
    ):
        starts = [*torch.nonzero(positions == 0).flatten().tolist(), len(ids)]
        for start, end in itertools.pairwise(starts):
            yield ids[start:end], labels[start:end], weight


def plain_step(model, optimizer, window, clip):
    """One optimizer step as a bare loop would do it: every document alone, every token weighted by hand."""
    optimizer.zero_grad()
    total = 0.0
    for batch in window:
        for ids, labels, weight in documents(batch):
            logits = model(input_ids=ids[None]).logits[0]
            kept = labels[1:] != IGNORED
            if kept.any():
                loss = weight * cross_entropy(logits[:-1][kept].float(), labels[1:][kept], reduction="sum")
                loss.backward()
                total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return total


def test_training_equals_a_bare_loop_over_single_documents(tokenizer, make_model):
    """Packing, accumulation, weights, schedule, clipping and weight decay at once: the same losses and weights."""
    config = small_config(REPLAY, evaluation=QUIET, training={
        "sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 4,
    })  # fmt: skip
    model, peer = make_model(1), make_model(1)
    trainer = make_trainer(config, model, tokenizer, World())
    windows = [[{k: v.clone() for k, v in b.items()} for b in window] for window in trainer.stream[0].batches]
    losses = []
    recorder = Recorder()
    recorder.__dict__["after_training_iteration"] = lambda trainer, **kwargs: losses.append(trainer.log["loss"])
    trainer.plugins.insert(0, recorder)
    trainer.train([trainer.stream[0]])

    settings = config.stream[0].optimizer
    decayed = [p for p in peer.parameters() if p.ndim > 1]
    flat = [p for p in peer.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": flat, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=settings.betas)
    expected = []
    for step, window in enumerate(windows):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(windows), settings)
        expected.append(plain_step(peer, optimizer, window, settings.clip))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=0, atol=2e-6)
    for name, weight in full_state(peer).items():
        torch.testing.assert_close(full_state(model)[name], weight, rtol=0, atol=1e-5)


def test_row_losses_are_those_of_the_library(make_model, tokenizer):
    model = make_model(0)
    ids = torch.randint(0, len(tokenizer), (3, 20), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :7] = IGNORED
    output = model(input_ids=ids, labels=labels)
    assert row_losses(output.logits.detach(), labels).sum() / (labels[:, 1:] != IGNORED).sum() == pytest.approx(
        output.loss.item(), rel=1e-5
    )


def test_callbacks_come_in_order_and_once_a_step(tokenizer, make_model):
    config = small_config({}, evaluation=QUIET, training={
        "sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 8,
    })  # fmt: skip
    trainer = make_trainer(config, make_model(0), tokenizer, World())
    recorder = Recorder()
    trainer.plugins.insert(0, recorder)
    trainer.train([trainer.stream[1]])
    names = [name for name, _ in recorder.calls]
    first = names.index("before_training_iteration")
    micro = ["before_forward", "after_forward", "before_backward"]
    step = ["before_training_iteration", *micro, *micro, "after_backward"]
    step += ["before_update", "after_update", "after_training_iteration"]
    assert names[first : first + len(step)] == step
    assert names.count("after_backward") == len(trainer.stream[1].batches)
    assert names[0] == "before_training" and names[-1] == "after_training"


def test_measurement_points(tokenizer, make_model):
    """Base, milestones in tokens and in epochs, ends; the first step to reach a milestone's domain tokens."""
    optimizer = {"lr": 1e-3}
    stream = [
        {"name": "a", "data": "medical", "tokens": "8k", "measure_at": ["2k", "0.2 epochs"], "optimizer": optimizer},
        {"name": "b", "data": "exam", "tokens": 3000, "optimizer": optimizer},
    ]
    trainer = make_trainer(small_config(REPLAY, stream=stream), make_model(0), tokenizer, World())
    seen = []
    measure = trainer.measure

    def remember(**kwargs):
        seen.append((kwargs["experience"], kwargs["final"], trainer.tokens, trainer.all_tokens))
        measure(**kwargs)

    trainer.measure = remember
    trainer.train(trainer.stream)
    names = [(name, final) for name, final, *_ in seen]
    assert names == [("base", True), ("a", False), ("a", False), ("a", True), ("b", True)]
    epoch = trainer.stream[0].batches.rows[0].tokens.sum()
    domain = trainer.stream[0].batches.trained(domain_only=True)
    points = sorted([2000, 0.2 * epoch])
    for (_, _, tokens, _), asked in zip(seen[1:3], points, strict=True):
        assert tokens >= asked and domain[list(domain).index(tokens) - 1] < asked
    assert seen[0][2:] == (0, 0)
    assert seen[3][2] == domain[-1] == pytest.approx(8000, abs=64)
    assert seen[4][2] == domain[-1] + trainer.stream[1].batches.trained(domain_only=True)[-1]
    assert seen[4][3] > seen[4][2]


@pytest.mark.parametrize("epochs", [0.37, 0.5, 1, 1.5])
def test_a_measurement_point_may_be_the_end(tokenizer, make_model, epochs):
    """The rows of a part of an epoch seldom have just its tokens; the end is measured once, as the end."""
    end = {"epochs": epochs, "measure_at": [f"{epochs} epochs"], "optimizer": {"lr": 1e-3}}
    config = small_config({}, stream=[{"name": "a", "data": "medical", **end}])
    experience = make_trainer(config, make_model(0), tokenizer, World()).stream[0]
    assert experience.milestones == {}


def test_measuring_changes_nothing_in_training(tokenizer, make_model):
    """Mode, random state, batches: a run with measurements ends with the weights of a run without."""
    stream = [{"name": "a", "data": "medical", "tokens": 6000, "measure_at": [1500, 3000], "optimizer": {"lr": 1e-3}}]
    weights = []
    for evaluation in ({}, {"evaluation": QUIET}):
        trainer = make_trainer(small_config(REPLAY, stream=stream, **evaluation), make_model(0), tokenizer, World())
        trainer.train(trainer.stream)
        assert trainer.model.training
        weights.append(full_state(trainer.model))
    for name, weight in weights[0].items():
        assert torch.equal(weights[1][name], weight), name


def test_nan_stops_before_the_weights_change(tokenizer, make_model):
    trainer = make_trainer(small_config({}, evaluation=QUIET), make_model(0), tokenizer, World())
    before = []

    class Poison:
        supports_distributed = True

        def before_backward(self, trainer, **kwargs):
            if trainer.clock.train_exp_iterations == 3:
                before.append(copy.deepcopy(full_state(trainer.model)))
                trainer.loss = trainer.loss * float("nan")

    trainer.plugins.insert(0, Poison())
    with pytest.raises(DivergedError, match=r"'pretraining', step 4: the loss is nan"):
        trainer.train(trainer.stream)
    for name, weight in full_state(trainer.model).items():
        assert torch.equal(weight, before[0][name]) and weight.isfinite().all()


def test_activation_checkpointing_changes_nothing(tokenizer, make_model):
    weights = []
    for checkpointing in (False, True):
        training = {"sequence_length": 64, "tokens_per_step": 1024, "activation_checkpointing": checkpointing}
        trainer = make_trainer(small_config({}, evaluation=QUIET, training=training), make_model(0), tokenizer, World())
        trainer.train(trainer.stream)
        weights.append(full_state(trainer.model))
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-6)
