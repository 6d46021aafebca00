"""Distillation: its gradient against autograd of the formula; the teacher; what is stored; its direction."""

import shutil

import pytest
import torch
from clmed.strategies.der import DER
from clmed.strategies.distill import Distill
from torch.nn.functional import cross_entropy

from clmed.errors import UserError
from clmed.shards import clone_shards
from clmed.training.sharding import World
from tests.small import GENERAL, make_trainer, small_config

QUIET = {"gain": [], "retention": []}
TRAINING = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 5}


def trainer_for(strategy, tokenizer, make_model, **changes):
    config = small_config(strategy, evaluation=QUIET, training=TRAINING, **changes)
    return make_trainer(config, make_model(2), tokenizer, World())


def strategy_of(trainer, kind):
    (found,) = (plugin for plugin in trainer.plugins if isinstance(plugin, kind))
    return found


class Gradients:
    """The gradient and the weights of one step, before clipping; then it ends."""

    supports_distributed = True

    def __init__(self, step):
        self.step, self.weights = step, None

    def before_training_iteration(self, trainer, **kwargs):
        if trainer.clock.train_exp_iterations == self.step:
            self.weights = clone_shards(trainer.model)

    def after_backward(self, trainer, **kwargs):
        if trainer.clock.train_exp_iterations == self.step:
            self.found = {name: p.grad.clone() for name, p in trainer.model.named_parameters()}
            self.rows = {key: torch.cat([b[key] for b in trainer.experience.batches[self.step]]) for key in self.keys}
            trainer._stop_training = True

    keys = ("input_ids", "position_ids", "labels", "weight", "part", "source", "row")


def autograd_of(formula, step, make_model):
    """Gradients of `formula(logits, teacher's logits)` of the whole step at the weights of the step."""
    model, teacher = make_model(2), make_model(2)
    model.load_state_dict(step.weights)
    inputs = {key: step.rows[key] for key in ("input_ids", "position_ids")}
    with torch.no_grad():
        said = teacher(**inputs, use_cache=False).logits
    formula(model(**inputs, use_cache=False).logits, said).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def cross_entropies(logits, rows):
    """(rows,) summed over positions."""
    targets = torch.cat([rows["labels"][:, 1:], torch.full_like(rows["labels"][:, :1], -100)], 1)
    return cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=-100).sum(1), targets != -100


@pytest.mark.parametrize(
    ("teacher", "temperature", "part"),
    [("live", 1.0, None), ("live", 2.0, None), ("stored", 1.0, None), ("stored", 2.0, None), ("stored", 1.0, 0.3)],
)
def test_the_gradient_is_autograd_of_the_formula(teacher, temperature, part, tokenizer, make_model):
    """The third step, of four micro-batches, all logits kept: strength T^2 mean over the domain's rows of mean KL.

    part: of the domain's rows a curriculum trains so many only.
    """
    given = {"strength": 3.0, "temperature": temperature, "teacher": teacher, "top": 999, "rows": 10**6}
    fewer = {"curriculum": {"of": ["medical"], "reference": ["exam"], "keep": part}} if part else {}
    trainer = trainer_for(
        {**fewer, "replay": {"ratio": 0.25, "from": GENERAL}, "distill": given}, tokenizer, make_model
    )
    trainer.plugins.insert(2 + len(fewer), watch := Gradients(2))
    trainer.train([trainer.stream[0]])
    mixture, rows = trainer.stream[0].batches.mixture, watch.rows

    def formula(logits, said):
        nats, where = cross_entropies(logits, rows)
        p, q = ((each / temperature).softmax(-1) for each in (said, logits))
        divergence = (p * (p.log() - q.log())).sum(-1)
        mean = (divergence * where).sum(1) / where.sum(1).clamp(min=1)
        domain = (rows["source"] == mixture.sources.index("medical")) & (rows["row"] >= 0)
        share = mixture.counts[:, mixture.sources.index("medical")].sum() / mixture.counts.sum()
        return (nats * rows["weight"]).sum() + 3.0 * temperature**2 * (mean * domain).sum() / 16 / share

    for name, gradient in autograd_of(formula, watch, make_model).items():
        torch.testing.assert_close(watch.found[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["mse", "kl"])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_der_s_gradient_is_autograd_of_the_formula(loss, beta, tokenizer, make_model):
    given = {"from": GENERAL, "ratio": 0.25, "memory": 20, "alpha": 0.7, "beta": beta, "loss": loss, "top": 999}
    trainer = trainer_for({"der": given}, tokenizer, make_model)
    trainer.plugins.insert(1, watch := Gradients(2))
    trainer.train([trainer.stream[0]])
    mixture, rows = trainer.stream[0].batches.mixture, watch.rows

    def formula(logits, said):
        nats, where = cross_entropies(logits, rows)
        memory = (rows["source"] == mixture.sources.index("der-memory")) & (rows["row"] >= 0)
        assert 0 < memory.sum() < 16
        p, q = (each.softmax(-1) for each in (said, logits))
        distance = (said - logits).square().mean(-1) if loss == "mse" else (p * (p.log() - q.log())).sum(-1)
        mean = (distance * where).sum(1) / where.sum(1).clamp(min=1)
        share = mixture.counts[:, mixture.sources.index("der-memory")].sum() / mixture.counts.sum()
        labels = (nats * rows["weight"] * torch.where(memory, beta, 1.0)).sum()
        return labels + 0.7 * (mean * memory).sum() / 16 / share

    for name, gradient in autograd_of(formula, watch, make_model).items():
        torch.testing.assert_close(watch.found[name], gradient, rtol=1e-3, atol=1e-6)


def test_the_teacher_is_the_model_before_each_experience_and_leaves_no_trace(tokenizer, make_model):
    trainer = trainer_for({"distill": {"strength": 2.0}}, tokenizer, make_model)
    distill, starts, teachers = strategy_of(trainer, Distill), [], []
    before, ask = distill.before_training_exp, trainer.logits_with
    distill.before_training_exp = lambda t, **k: (starts.append(clone_shards(t.model)), before(t))

    def asked(weights):
        own, flops = clone_shards(trainer.model), trainer.flops
        logits = ask(weights)
        assert all(torch.equal(own[name], shard) for name, shard in clone_shards(trainer.model).items())
        assert trainer.model.training
        positions = trainer.mbatch["input_ids"].numel()
        assert trainer.flops - flops == pytest.approx(trainer.flops_per_token * positions / 3)
        teachers.append({name: shard.clone() for name, shard in weights.items()})
        return logits

    trainer.logits_with = asked
    trainer.train(trainer.stream)
    first = len(trainer.stream[0].batches) * trainer.stream[0].batches.accumulation
    for index, weights in enumerate(teachers):
        start = starts[index >= first]
        assert all(torch.equal(weights[name], start[name]) for name in start)
    assert any(not torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


def test_der_keeps_the_logits_of_the_model_that_learned_a_row(tokenizer, make_model):
    """General rows are stored before the first experience, its own after it; those that stay are not stored again."""
    trainer = trainer_for({"der": {"from": [*GENERAL, "past"], "memory": 40, "top": 5}}, tokenizer, make_model)
    der, starts = strategy_of(trainer, DER), []
    before = der.before_training_exp
    der.before_training_exp = lambda t, **k: (starts.append(clone_shards(t.model)), before(t))
    trainer.train(trainer.stream)
    first, second = (reference["places"] for reference in der.stored.references)
    assert {name for name, _ in first} == set(GENERAL) and {name for name, _ in second} == {"medical"}
    assert set(der.places[1]) <= {*first, *second} and len(der.places[1]) == 40
    model = make_model(2)
    for places, start in ((first, starts[0]), (second, starts[1])):
        model.load_state_dict(start)
        source, row = places[3]
        rows = trainer.corpus.rows(source).data[[row]]
        ids, positions, labels = (torch.tensor(rows[key]).long() for key in ("input_ids", "position_ids", "labels"))
        with torch.no_grad():
            logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        where, kept_ids, values = der.stored.look_up([(source, row)], labels)
        best = logits[where].topk(5)
        torch.testing.assert_close(values[:, :5], best.values, rtol=1e-4, atol=1e-5)
        assert (kept_ids == best.indices).float().mean() > 0.99


def test_a_store_that_is_gone_or_damaged_is_told(tokenizer, make_model, tmp_path, monkeypatch):
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path))
    trainer = trainer_for({"der": {"from": GENERAL, "memory": 20}}, tokenizer, make_model)
    trainer.train([trainer.stream[0]])
    state = strategy_of(trainer, DER).state_dict()
    fresh = DER(from_=GENERAL)
    fresh.load_state_dict(state)
    (folder,) = (path for path in tmp_path.glob("logits/*") if path.is_dir())
    file = folder / "0.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"0.safetensors has changed.*--overwrite"):
        fresh.load_state_dict(state)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"is missing.*put the folder back"):
        fresh.load_state_dict(state)


def test_what_cannot_be_is_refused_before_the_work(tokenizer, make_model):
    with pytest.raises(UserError, match="pretraining trains no english, chinese: put replay"):
        trainer_for({"distill": {"from": GENERAL}}, tokenizer, make_model)
    with pytest.raises(UserError, match="pretraining trains no english, chinese: put replay"):
        given = {"replay": {"ratio": 0, "from": GENERAL}, "distill": {"from": GENERAL}}
        trainer_for(given, tokenizer, make_model)
    for wrong in ({"temperature": 0.0}, {"strength": -1.0}, {"rows": 0}, {"top": 0}, {"domain": False}):
        with pytest.raises(UserError, match="distill needs"):
            Distill(**wrong)
    for wrong in ({"ratio": 1.0}, {"memory": 0}, {"alpha": -1.0}, {"beta": -1.0}, {"from_": []}):
        with pytest.raises(UserError, match="der needs"):
            DER(**{"from_": GENERAL, **wrong})
