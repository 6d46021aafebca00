"""The direction of each method in a case of its own: a model that knows general text learns medicine and keeps more."""

import pytest
import torch

from clmed.training.sharding import World
from tests.small import full_state, make_trainer, small_config

QUIET = {"gain": [], "retention": []}
TRAINING = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 16}
METHODS = {
    "replay": {"replay": {"from": ["english"], "ratio": 0.2}},
    "interleave": {"interleave": {"from": ["english"], "every": 5}},
    "interleave-priority": {"interleave": {"from": ["english"], "every": 5, "priority": 2.0}},
    "l2": {"l2": {"strength": 3.0}},
    "ewc": {"ewc": {"fisher_from": ["english"], "rows": 40, "strength": 3000.0}},
    "agem": {"agem": {"from": ["english"], "rows": 16}},
    "distill": {"distill": {"strength": 1.0}},
    "distill-stored": {"distill": {"strength": 1.0, "teacher": "stored", "rows": 100}},
    "der": {"der": {"from": ["english"], "memory": 50, "ratio": 0.2}},
}


def losses_after(stream, strategy, model, tokenizer):
    """Mean token losses of rows that no method reads: of general and of medical text."""
    config = small_config(strategy, evaluation=QUIET, training=TRAINING, stream=stream)
    trainer = make_trainer(config, model, tokenizer, World())
    trainer.train(trainer.stream)
    model.eval()
    found = []
    for source in ("english", "medical"):
        rows = trainer.sample_rows([source], part="heldout", rows=20)
        with torch.no_grad():
            said = [model(**{k: r[k] for k in ("input_ids", "position_ids", "labels")}, use_cache=False) for r in rows]
        found.append(torch.stack([each.loss for each in said]).mean().item())
    return found


def learning(strategy):
    optimizer = {"lr": 4e-3, "warmup": 0.1} | ({"weight_decay": 0.0} if "l2" in strategy else {})
    return [{"name": "medical", "data": ["medical"], "tokens": 25_000, "optimizer": optimizer}]


@pytest.fixture(scope="module")
def knowing(tokenizer, make_model):
    """A model that knows general text, and what it forgets and learns naively."""
    model = make_model(2, tie_word_embeddings=True)
    stream = [{"name": "general", "data": ["english"], "tokens": 120_000, "optimizer": {"lr": 1e-2}}]
    knows = losses_after(stream, {}, model, tokenizer)
    weights = full_state(model)
    return weights, knows, losses_after(learning({}), {}, model, tokenizer)


@pytest.mark.parametrize("method", METHODS)
def test_it_forgets_less_and_learns(method, knowing, tokenizer, make_model):
    weights, knows, naive = knowing
    model = make_model(2, tie_word_embeddings=True)
    model.load_state_dict(weights, strict=False)
    strategy = METHODS[method]
    found = losses_after(learning(strategy), strategy, model, tokenizer)
    assert found[0] - knows[0] < 0.9 * (naive[0] - knows[0]), "it forgets as much as naively"
    assert found[1] < knows[1] - 0.3 * (knows[1] - naive[1]), "it did not learn"
