"""EWC against brute force: the Fisher of single rows, the penalty's gradient by autograd, the order of penalties."""

import pytest
import torch
from clmed.strategies.ewc import EWC

from clmed.shards import add_to_gradients, clone_shards, mean_squared_gradients, quadratic_penalty, shards
from clmed.training.sharding import World
from tests.small import GENERAL, make_trainer, small_config

QUIET = {"gain": [], "retention": []}


def fisher_diagonal(trainer, sources, rows):
    sample = trainer.sample_rows(sources, part="fisher", rows=rows)
    return mean_squared_gradients(trainer.model, sample, trainer.row_gradient)


def trainer_for(strategy, tokenizer, make_model, **changes):
    return make_trainer(small_config(strategy, evaluation=QUIET, **changes), make_model(2), tokenizer, World())


def test_fisher_is_the_mean_of_squared_row_gradients(tokenizer, make_model):
    trainer = trainer_for({}, tokenizer, make_model)
    trainer.experience = trainer.stream[0]
    trainer.make_optimizer()
    found = fisher_diagonal(trainer, GENERAL, 8)
    rows = trainer.sample_rows(GENERAL, part="fisher", rows=8)
    model, expected = make_model(2), {}
    for row in rows:
        model.zero_grad()
        model(
            input_ids=row["input_ids"], position_ids=row["position_ids"], labels=row["labels"], use_cache=False
        ).loss.backward()
        for name, parameter in model.named_parameters():
            expected[name] = expected.get(name, 0) + parameter.grad**2 / len(rows)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-9)
    assert all(parameter.grad is None for parameter in trainer.model.parameters()), "left a gradient behind"


def test_fisher_reads_the_fisher_part_alone(tokenizer, make_model):
    trainer = trainer_for({}, tokenizer, make_model)
    kept = {tuple(row) for name in GENERAL for row in trainer.corpus.rows(name, "fisher").data["input_ids"][:].tolist()}
    rows = trainer.sample_rows(GENERAL, part="fisher", rows=8)
    assert len(rows) == 8
    order = [tuple(row["input_ids"][0].tolist()) for row in trainer.sample_rows(GENERAL, part="fisher", rows=10**6)]
    chosen = [order.index(tuple(row["input_ids"][0].tolist())) for row in rows]
    assert max(chosen) > 16, "the first rows of the file are no sample"
    assert {tuple(row["input_ids"][0].tolist()) for row in rows} <= kept


def test_gradient_is_that_of_the_penalty(make_model):
    model, generator = make_model(0), torch.Generator().manual_seed(0)
    anchor = {name: shard + torch.randn(shard.shape, generator=generator) / 10 for name, shard in shards(model)}
    importance = {name: torch.rand(shard.shape, generator=generator) for name, shard in shards(model)}
    penalty = sum(
        (importance[name] * (parameter - anchor[name]) ** 2).sum() for name, parameter in model.named_parameters()
    ) * (3.0 / 2)
    penalty.backward()
    by_autograd = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad.zero_()
    add_to_gradients(model, anchor, 3.0, importance)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, by_autograd[name], rtol=0, atol=2e-7)
    assert quadratic_penalty(model, anchor, 3.0, importance) == pytest.approx(penalty.item(), rel=1e-6)


@pytest.mark.parametrize("mode", ["online", "separate"])
def test_penalties_over_the_stream(mode, tokenizer, make_model):
    """General Fisher before the first experience, the first one's after it; online they are one, with decay."""
    given = {"fisher_from": GENERAL, "rows": 6, "mode": mode, "decay": 0.5}
    trainer = trainer_for({"ewc": given}, tokenizer, make_model)
    (ewc,) = (plugin for plugin in trainer.plugins if isinstance(plugin, EWC))
    fishers = []
    consolidate = ewc._consolidate

    def remember(trainer, sources):
        before = [(sources, clone_shards(trainer.model))]
        consolidate(trainer, sources)
        fishers.append(
            (*before, [({n: f.clone() for n, f in fisher.items()}, anchor) for fisher, anchor in ewc.penalties])
        )

    ewc._consolidate = remember
    trainer.train(trainer.stream)
    assert [sources for (sources, _), _ in fishers] == [GENERAL, ["medical"]]
    (_, first), (at_second, second) = fishers
    assert len(second) == (1 if mode == "online" else 2)
    fisher, anchor = second[-1]
    for name, value in at_second[1].items():
        assert torch.equal(anchor[name], value)
    if mode == "online":
        alone = make_model(2)
        alone.load_state_dict(at_second[1])
        peer = trainer_for({}, tokenizer, lambda seed: alone)
        peer.experience = peer.stream[0]
        peer.make_optimizer()
        new = fisher_diagonal(peer, ["medical"], 6)
        for name, value in fisher.items():
            torch.testing.assert_close(value, 0.5 * first[0][0][name] + new[name], rtol=1e-4, atol=1e-9)


def test_holds_the_weights_harder_with_more_strength(tokenizer, make_model):
    distances = []
    for strength in (0.0, 1e2, 1e6):
        trainer = trainer_for({"ewc": {"fisher_from": GENERAL, "rows": 6, "strength": strength}}, tokenizer, make_model)
        (ewc,) = (plugin for plugin in trainer.plugins if isinstance(plugin, EWC))
        trainer.train([trainer.stream[0]])
        fisher, anchor = ewc.penalties[0]
        distances.append(quadratic_penalty(trainer.model, anchor, 1.0, fisher))
    assert distances[0] > distances[1] > distances[2]
