"""bf16 and fp16: close to fp32; an overflow skips the whole step, on all ranks; the scale is the library's."""

import pytest
import torch

from clmed.training.checkpoint import Checkpoints
from clmed.training.precision import DivergedError, LossScaler
from clmed.training.sharding import World
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config

STREAM = [{"name": "only", "data": "medical", "tokens": 7000, "optimizer": {"lr": 1e-3, "warmup": 0.1}}]
SCORED = {"gain": [], "retention": [{"benchmark": "mmlu", "path": "mmlu", "scoring": "text", "questions": 4}]}
EWC = {"ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 3}}
OVERFLOWS = (2, 5)  # steps, from 0


class Overflow:
    """Makes the gradients of the second rank overflow at some steps, and counts what strategies and optimizer see."""

    supports_distributed = True

    def __init__(self, trainer):
        self.steps, self.seen, self.logs = 0, [], []
        step = trainer.optimizer_step
        trainer.optimizer_step = lambda: (self.seen.append(("step", self.steps)), step())

    def before_backward(self, trainer, **kwargs):
        if self.steps in OVERFLOWS and trainer.world.rank == trainer.world.ranks - 1:
            trainer.loss = trainer.loss * 1e30

    def after_backward(self, trainer, **kwargs):
        self.seen.append(("strategies", self.steps))
        norms = [p.grad.to_local().norm() for p in trainer.model.parameters()]
        assert all(norm.isfinite() and norm < 10 for norm in norms), "not unscaled"

    def after_training_iteration(self, trainer, **kwargs):
        self.logs.append(dict(trainer.log))
        self.steps += 1


def trainer_of(world, tokenizer, make_model, precision, strategy=EWC, **extra):
    training = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 8, "precision": precision}
    config = small_config(strategy, stream=STREAM, evaluation=SCORED, training=training)
    scaler = LossScaler() if precision == "fp16" else None
    return make_trainer(config, make_model(1), tokenizer, world, scaler=scaler, **extra)


def _all(world, tokenizer, make_model):
    found = {}
    for precision in ("fp32", "bf16", "fp16"):
        trainer = trainer_of(world, tokenizer, make_model, precision)
        losses = []
        trainer.plugins.insert(0, _Logs(losses))
        trainer.train(trainer.stream)
        dtypes = {parameter.dtype for parameter in trainer.model.parameters()}
        found[precision] = losses, full_state(trainer.model), trainer.evaluator.get_all_metrics(), dtypes
    trainer = trainer_of(world, tokenizer, make_model, "fp16")
    trainer.plugins.insert(0, watch := Overflow(trainer))
    trainer.train(trainer.stream)
    found["overflow"] = watch.seen, watch.logs, trainer.scaler.state_dict(), full_state(trainer.model)
    return found


class _Logs:
    supports_distributed = True

    def __init__(self, losses):
        self.losses = losses

    def after_training_iteration(self, trainer, **kwargs):
        self.losses.append(trainer.log["loss"])


@pytest.fixture(scope="module")
def two_ranks(tokenizer, make_model, tmp_path_factory):
    """One forked process group trains in every precision, and once with overflows."""
    return on_ranks(2, lambda world: _all(world, tokenizer, make_model), tmp_path_factory.mktemp("precision"))


@pytest.mark.parametrize(("precision", "close"), [("bf16", 2e-2), ("fp16", 2e-3)])
def test_half_precision_is_close_to_fp32(two_ranks, precision, close):
    """Losses and scores; not equal, or the policy would not be at work. What is stored and stepped stays fp32."""
    (losses, weights, scores, dtypes), (expected, _, right, _) = two_ranks[precision], two_ranks["fp32"]
    assert dtypes == {torch.float32}
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=close, atol=0)
    assert losses != expected
    for name, (_, values) in right.items():
        assert scores[name][1] == pytest.approx(values, rel=close), name
    assert all(weight.isfinite().all() for weight in weights.values())


def test_an_overflow_on_one_rank_skips_the_step_on_all(two_ranks):
    seen, logs, scaler, weights = two_ranks["overflow"]
    steps = len(logs)
    good = [step for step in range(steps) if step not in OVERFLOWS]
    assert seen == [each for step in good for each in (("strategies", step), ("step", step))]
    assert [log["overflow"] for log in logs] == [float(step in OVERFLOWS) for step in range(steps)]
    assert [log["loss_scale"] for log in logs[:4]] == [2.0**16] * 3 + [2.0**15]
    assert scaler == {"scale": 2.0**14, "good_steps": steps - OVERFLOWS[-1] - 1}
    assert all(weight.isfinite().all() for weight in weights.values())


def test_the_scale_follows_the_rule_of_the_library():
    """The same overflows give torch.amp.GradScaler the same scales."""
    peer = torch.amp.GradScaler("cpu", growth_interval=2000)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    ours = LossScaler()
    model = torch.nn.Module()
    model.weight = weight
    for step in range(2500):
        overflow = step in (3, 4, 300)
        gradient = torch.full((1,), float("inf") if overflow else 3.0)
        peer.scale(torch.zeros(1))  # makes its state
        weight.grad = gradient * peer.get_scale()
        peer.unscale_(optimizer)
        peer.step(optimizer)
        peer.update()
        weight.grad = gradient * ours.scale
        assert ours.unscale(model) == overflow
        assert overflow or weight.grad.item() == 3.0
        ours.update(overflow)
        assert ours.scale == peer.get_scale(), step


def test_overflows_without_end_stop_the_run():
    scaler = LossScaler()
    with pytest.raises(DivergedError, match="overflow fp16 whatever the scale"):
        for _ in range(40):
            scaler.update(overflow=True)


def test_the_scale_is_part_of_a_checkpoint(tokenizer, make_model, tmp_path):
    """A run that goes on after the first overflow has the scale, and so the weights, of one that never stopped."""

    def work(world: World):
        checkpoints = Checkpoints(tmp_path / "checkpoints", world=world, keep=9)

        def train(found, steps):
            trainer = trainer_of(world, tokenizer, make_model, "fp16", {}, checkpoints=checkpoints, save_every=4)
            trainer.plugins.insert(0, watch := Overflow(trainer))
            watch.steps = steps
            trainer.train(trainer.stream, found=found)
            return trainer.scaler.state_dict(), full_state(trainer.model)

        whole = train(None, 0)
        for path in checkpoints.folder.iterdir():
            if not path.name.startswith("00000004-"):
                path.rename(tmp_path / path.name)
        return whole, train(checkpoints.latest(), 4)

    (scaler, weights), (again, same) = on_ranks(1, work, tmp_path)
    assert scaler == again and scaler["scale"] == 2.0**14
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())
