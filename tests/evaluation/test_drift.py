"""KL to the base against brute force, on one rank and two, through an interruption, and without a trace in training."""

import itertools

import pytest
import torch

from clmed.config import WatchingConfig
from clmed.evaluation.drift import KLToBase
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World
from tests.configs import complaint, make_folder
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config
from tests.training.test_checkpoint import Power, PowerCutError

QUIET = {"gain": [], "retention": []}
ROWS = 3
STREAM = [
    {"name": "a", "data": "medical", "tokens": 6000, "optimizer": {"lr": 3e-3}},
    {"name": "b", "data": "exam", "tokens": 3000, "optimizer": {"lr": 1e-3}},
]


class Log:
    supports_distributed = True

    def __init__(self):
        self.kl = {}

    def after_training_iteration(self, trainer, **kwargs):
        if "kl_to_base" in trainer.log:
            self.kl[trainer.clock.train_iterations + 1] = trainer.log["kl_to_base"]


def watched(world, tokenizer, make_model, top=64, every=3, **extra):
    """A trainer with the plugin and a log of what it writes."""
    config = small_config({}, stream=STREAM, evaluation=QUIET)
    trainer = make_trainer(config, make_model(1), tokenizer, world, **extra)
    watching = WatchingConfig.model_validate({"kl": {"data": GENERAL, "rows": ROWS, "every": every, "top": top}})
    log = Log()
    trainer.plugins[:0] = [*KLToBase.of(watching, trainer.corpus), log]
    return trainer, log


def brute_force(model, base, rows, top):
    """Every document alone, every token of the vocabulary, in float64; the tail as one event where top is smaller."""
    total, count = 0.0, 0
    for row in rows:
        ids, labels = (torch.tensor(row[key]).long() for key in ("input_ids", "labels"))
        starts = [*torch.nonzero(torch.tensor(row["position_ids"]) == 0).flatten().tolist(), len(ids)]
        for start, end in itertools.pairwise(starts):
            p, q = (m(input_ids=ids[None, start:end]).logits[0].double().softmax(-1) for m in (base, model))
            for place in range(start, end - 1):
                if labels[place + 1] == -100:
                    continue
                one, other = p[place - start], q[place - start]
                kept = one.topk(min(top, len(one))).indices
                rest = torch.ones(len(one), dtype=torch.bool)
                rest[kept] = False
                total += (one[kept] * (one[kept] / other[kept]).log()).sum().item()
                if rest.any():
                    total += (one[rest].sum() * (one[rest].sum() / other[rest].sum()).log()).item()
                count += 1
    return total / count


@pytest.mark.parametrize("top", [16, 100_000])
@torch.no_grad()
def test_equals_brute_force(top, tokenizer, make_model):
    trainer, log = watched(World(), tokenizer, make_model, top=top)
    rows = trainer.plugins[0].rows
    with torch.enable_grad():
        trainer.train(trainer.stream)
    expected = brute_force(trainer.model.eval(), make_model(1), rows, top)
    last = list(log.kl.values())[-1]
    assert last == pytest.approx(expected, rel=1e-4) and last > 1e-4
    assert len(rows) == ROWS


def test_is_logged_when_asked_and_at_the_ends(tokenizer, make_model):
    trainer, log = watched(World(), tokenizer, make_model, every=4)
    lengths = [len(experience.batches) for experience in trainer.stream]
    trainer.train(trainer.stream)
    ends = {lengths[0], sum(lengths)}
    assert set(log.kl) == {step for step in range(1, sum(lengths) + 1) if step % 4 == 0} | ends


def test_a_coarser_view_never_sees_more(tokenizer, make_model):
    """Data-processing inequality, on the same weights."""
    seen = []
    for top in (1, 16, 100_000):
        trainer, log = watched(World(), tokenizer, make_model, top=top, every=1000)
        trainer.train([trainer.stream[0]])
        seen += log.kl.values()
    assert 0 < seen[0] < seen[1] < seen[2]


def test_two_ranks_equal_one(tmp_path, tokenizer, make_model):
    """Three rows on two ranks: one of them is repeated, and must not count twice."""

    def run(world):
        trainer, log = watched(world, tokenizer, make_model)
        trainer.train(trainer.stream)
        return log.kl

    one, two = run(World()), on_ranks(2, run, tmp_path)
    assert one.keys() == two.keys() and len(one) > 3
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-3, abs=1e-6)


def test_goes_on_bit_for_bit_and_leaves_no_trace(tmp_path, tokenizer, make_model):
    whole, log = watched(World(), tokenizer, make_model)
    whole.train(whole.stream)
    checkpoints = Checkpoints(tmp_path, world=World())
    settings = {"checkpoints": checkpoints, "save_every": 4}
    broken, before = watched(World(), tokenizer, make_model, **settings)
    broken.plugins.insert(0, Power("before_update", 6))
    with pytest.raises(PowerCutError):
        broken.train(broken.stream)
    again, after = watched(World(), tokenizer, make_model, **settings)
    again.train(again.stream, found=checkpoints.latest())
    assert {**before.kl, **after.kl} == log.kl and min(after.kl) > 4
    unwatched = make_trainer(small_config({}, stream=STREAM, evaluation=QUIET), make_model(1), tokenizer, World())
    unwatched.train(unwatched.stream)
    for name, weight in full_state(unwatched.model).items():
        assert torch.equal(full_state(whole.model)[name], weight) and torch.equal(full_state(again.model)[name], weight)
    assert whole.flops > unwatched.flops


def test_off_by_default_and_sources_are_checked(tmp_path, monkeypatch):
    assert KLToBase.of(WatchingConfig(), None) == []
    make_folder(tmp_path, monkeypatch)
    assert "watching.kl.data: no source 'genral' in data; did you mean 'general'?" in complaint(
        "watching.kl.data=[genral]"
    )
    assert "needs held-out text, but data.general.heldout is 0" in complaint(
        "watching.kl.data=general", "data.general.heldout=0", "evaluation.retention=[]"
    )
