"""EWC against brute force: the Fisher of single rows, the penalty's gradient by autograd, the order of penalties."""

import pytest
import torch
from clmed.strategies.ewc import EWC

from clmed.errors import UserError
from clmed.shards import add_to_gradients, clone_shards, mean_squared_gradients, quadratic_penalty, shards
from clmed.training.loss import sampled_labels
from clmed.training.sharding import World
from clmed.training.trainer import ContinualTrainer
from tests.small import GENERAL, full_state, make_trainer, small_config

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


@pytest.mark.parametrize("labels", ["data", "model"])
def test_runs_that_begin_alike_share_the_fisher(labels, tokenizer, make_model, tmp_path, monkeypatch):
    """The second finds it in the cache: the same numbers, FLOPs and weights in the end; a damaged one is made again."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path))
    made, found = [], []
    row_gradient = ContinualTrainer.row_gradient
    monkeypatch.setattr(ContinualTrainer, "row_gradient", lambda *a, **k: (made.append(1), row_gradient(*a, **k))[1])

    def run(strength, model=make_model, **more):
        given = {"fisher_from": GENERAL, "rows": 6, "past": False, "labels": labels, "strength": strength, **more}
        trainer = trainer_for({"ewc": given}, tokenizer, model)
        (ewc,) = (plugin for plugin in trainer.plugins if isinstance(plugin, EWC))
        before = len(made)
        trainer.train([trainer.stream[0]])
        found.append((ewc.penalties[0][0], trainer.flops, full_state(trainer.model)))
        return len(made) - before

    assert run(100.0) == 6 and run(100.0) == 0 and run(7.0) == 0
    (first, flops, weights), (second, same_flops, same), _ = found
    assert flops == same_flops and all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert run(100.0, rows=5) == 5 and run(100.0, model=lambda seed: make_model(9)) == 6
    for file in tmp_path.glob("fisher/*/0.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert run(100.0) == 6 and run(100.0) == 0
    assert not list(tmp_path.glob("fisher/.*"))


def test_a_run_that_freezes_some_weights_shares_it_with_none_that_trains_them(
    tokenizer, make_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path))
    found = []
    for beside in ({"freeze": {"layers": 1}}, {}):
        trainer = trainer_for({**beside, "ewc": {"fisher_from": GENERAL, "rows": 3}}, tokenizer, make_model)
        (ewc,) = (plugin for plugin in trainer.plugins if isinstance(plugin, EWC))
        trainer.train([trainer.stream[0]])
        found.append(ewc.penalties[0][0])
    some, every = found
    assert some.keys() < every.keys() == {name for name, _ in make_model(2).named_parameters()}
    for name, value in some.items():
        torch.testing.assert_close(value, every[name], rtol=1e-4, atol=1e-9)


def test_labels_are_drawn_as_the_model_says():
    """Chi-square over 4,000 positions with the same five probabilities, 4 degrees of freedom."""
    from scipy.stats import chisquare

    p = torch.tensor([0.05, 0.1, 0.15, 0.3, 0.4])
    labels = torch.zeros((2, 4001), dtype=torch.int64)
    labels[1, :2000] = -100
    drawn = sampled_labels(p.log().expand(2, 4001, 5), labels, seed=3)
    assert ((drawn == -100) == (labels == -100)).all()
    counts = torch.bincount(drawn[0, 1:], minlength=5)
    assert chisquare(counts.numpy(), 4000 * p.numpy() / p.sum().item()).pvalue > 0.001
    assert torch.equal(drawn, sampled_labels(p.log().expand(2, 4001, 5), labels, seed=3))
    sharp = torch.full((1, 6, 9), -50.0)
    sharp[0, torch.arange(6), [4, 2, 8, 0, 1, 3]] = 50.0  # what follows each position
    assert sampled_labels(sharp, torch.zeros((1, 6), dtype=torch.int64), seed=0)[0, 1:].tolist() == [4, 2, 8, 0, 1]


def test_the_fisher_with_the_models_labels_is_that_of_those_labels(tokenizer, make_model):
    trainer = trainer_for({}, tokenizer, make_model)
    trainer.experience = trainer.stream[0]
    trainer.make_optimizer()
    found = trainer.fisher(GENERAL, rows=4, labels="model", kept=False)
    model, expected = make_model(2), {}
    for index, row in enumerate(trainer.sample_rows(GENERAL, part="fisher", rows=4)):
        inputs = {key: row[key] for key in ("input_ids", "position_ids")}
        labels = sampled_labels(model(**inputs, use_cache=False).logits.detach(), row["labels"], index)
        assert not torch.equal(labels, row["labels"])
        model.zero_grad()
        model(**inputs, labels=labels, use_cache=False).loss.backward()
        for name, parameter in model.named_parameters():
            expected[name] = expected.get(name, 0) + parameter.grad**2 / 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-9)


def test_holds_the_weights_harder_with_more_strength(tokenizer, make_model):
    distances = []
    for strength in (0.0, 1e2, 1e6):
        trainer = trainer_for({"ewc": {"fisher_from": GENERAL, "rows": 6, "strength": strength}}, tokenizer, make_model)
        (ewc,) = (plugin for plugin in trainer.plugins if isinstance(plugin, EWC))
        trainer.train([trainer.stream[0]])
        fisher, anchor = ewc.penalties[0]
        distances.append(quadratic_penalty(trainer.model, anchor, 1.0, fisher))
    assert distances[0] > distances[1] > distances[2]


def test_one_that_would_hold_nothing_is_refused():
    with pytest.raises(UserError, match="ewc needs"):
        EWC(fisher_from=[], past=False)
