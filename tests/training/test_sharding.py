"""Every way to shard gives the numbers of one process: replicas, offload, activation checkpointing, precision."""

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from clmed.config import TrainingConfig
from clmed.errors import UserError
from clmed.shards import clone_shards, mean_squared_gradients, quadratic_penalty, reduce_sum, shards
from clmed.training.checkpoint import Checkpoints
from clmed.training.export import save_model
from clmed.training.launch import make_mesh, refuse_lost_ranks, refuse_unfit_gpu
from clmed.training.sharding import World
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config

EWC = {"ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 6}}
OPTIMIZER = {"lr": 1e-3, "warmup": 0.1, "clip": 0.1}  # clipped at every step
STREAM = [
    {"name": "one", "data": "medical", "tokens": 4000, "optimizer": OPTIMIZER},
    {"name": "two", "data": "exam", "tokens": 2000, "optimizer": OPTIMIZER},
]
WAYS = {
    "offload": {"cpu_offload": True},
    "checkpointing": {"activation_checkpointing": True},
    "checkpointing-bf16": {"activation_checkpointing": True, "precision": "bf16"},
    "bf16": {"precision": "bf16"},
}


def _train(world, tokenizer, make_model, folder=None, found=None, **training):
    settings = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 8, **training}
    measured = {"gain": [], "retention": [{"perplexity": "english"}]}
    config = small_config(EWC, stream=STREAM, evaluation=measured, training=settings)
    checkpoints = Checkpoints(folder / "checkpoints", world=world, keep=9) if folder else None
    trainer = make_trainer(config, make_model(1), tokenizer, world, checkpoints=checkpoints, save_every=3)
    trainer.plugins.insert(0, log := _Log())
    trainer.train(trainer.stream, found=checkpoints.latest() if found else None)
    return {"logs": log.logs, "weights": full_state(trainer.model), "scores": trainer.evaluator.get_all_metrics()}


class _Log:
    supports_distributed = True

    def __init__(self):
        self.logs = []

    def after_training_iteration(self, trainer, **kwargs):
        self.logs.append({key: trainer.log[key] for key in ("loss", "grad_norm", "ewc_penalty") if key in trainer.log})


def assert_same(found, expected, atol=1e-5):
    steps = expected["logs"][-len(found["logs"]) :]
    assert len(found["logs"]) == len(steps)
    for ours, theirs in zip(found["logs"], steps, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=atol)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=atol)
    for name, (_, values) in found["scores"].items():
        assert values[-1] == pytest.approx(expected["scores"][name][1][-1], abs=atol)


@pytest.fixture(scope="module")
def alone(tokenizer, make_model):
    return _train(World(), tokenizer, make_model)


@pytest.fixture(scope="module")
def ways(tokenizer, make_model, tmp_path_factory):
    """Two ranks, one forked process group for all of the ways."""

    def work(world):
        return {name: _train(world, tokenizer, make_model, **way) for name, way in WAYS.items()}

    return on_ranks(2, work, tmp_path_factory.mktemp("ways"))


@pytest.mark.parametrize("way", ["offload", "checkpointing"])
def test_the_same_numbers_as_in_one_process(ways, alone, way):
    assert_same(ways[way], alone)


def test_checkpointing_in_bf16_recomputes_what_was_computed(ways):
    assert_same(ways["checkpointing-bf16"], ways["bf16"], atol=1e-6)


def test_replicas_and_shards_equal_one_process(tokenizer, make_model, alone, tmp_path):
    """2 x 2: training, penalty, clipping; a checkpoint taken up by one process and by the mesh; the exported model."""

    def work(world):
        found = _train(world, tokenizer, make_model, folder=tmp_path, micro_batch_size=2, shard_ranks=2)
        folder = tmp_path / "checkpoints"
        torch.distributed.barrier()
        if world.main:
            for path in sorted(folder.iterdir())[1:]:
                path.rename(tmp_path / path.name)
        torch.distributed.barrier()
        again = _train(world, tokenizer, make_model, folder=tmp_path, found=True, micro_batch_size=2, shard_ranks=2)
        return found, again, _scalars(world, tokenizer, make_model, tmp_path)

    found, again, scalars = on_ranks(4, work, tmp_path, shard_ranks=2)
    assert len(found["logs"]) > len(again["logs"]) > 0
    assert_same(found, alone)
    assert_same(again, alone)
    for path in (tmp_path / "checkpoints").iterdir():
        if not path.name.startswith("00000003-"):
            path.rename(tmp_path / f"again-{path.name}")
    assert_same(_train(World(), tokenizer, make_model, folder=tmp_path, found=True), alone)

    model = make_model(1)
    assert scalars["placements"] == ["R", "S(0)"] and scalars["held"] == pytest.approx(
        sum(p.numel() for p in model.parameters()) / 2, rel=0.01
    )
    expected = _scalars(World(), tokenizer, make_model, tmp_path / "alone")
    for key in ("squares", "penalty"):
        assert scalars[key] == pytest.approx(expected[key], rel=1e-5)
    for name, fisher in expected["fisher"].items():
        rows = scalars["fisher"][name].shape[0]
        torch.testing.assert_close(scalars["fisher"][name], fisher[:rows], rtol=1e-4, atol=1e-9)
    exported = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "model").named_parameters())
    assert all(torch.equal(exported[name], weight) for name, weight in model.named_parameters())


def test_gradients_reduced_once_a_step_or_with_each_micro_batch(tokenizer, make_model, tmp_path):
    """The same weights as in one process; only the former keeps whole gradients between micro-batches."""

    def work(world):
        found = {}
        for reduce_each in (True, False):
            training = {"sequence_length": 64, "tokens_per_step": 1024, "micro_batch_size": 2}
            config = small_config({}, evaluation={"gain": [], "retention": []}, training=training)
            trainer = make_trainer(config, make_model(2), tokenizer, world, reduce_each=reduce_each)
            held = _BetweenMicroBatches()
            trainer.plugins.append(held)
            trainer.train(trainer.stream)
            found[reduce_each] = {"whole": held.whole, "weights": full_state(trainer.model)}
        return found

    two, one = on_ranks(2, work, tmp_path), work(World())
    assert two[True]["whole"] == {False} and two[False]["whole"] == {True}
    for reduce_each in (True, False):
        for name, weight in one[True]["weights"].items():
            torch.testing.assert_close(two[reduce_each]["weights"][name], weight, rtol=0, atol=1e-5)


class _BetweenMicroBatches:
    """Whether FSDP holds gradients that are not reduced, when a step's second micro-batch begins."""

    supports_distributed = True

    def __init__(self):
        self.whole, self.before = set(), 0

    def before_training_iteration(self, trainer, **kwargs):
        self.before = 0

    def before_forward(self, trainer, **kwargs):
        self.before += 1
        if self.before == 2 and trainer.world.ranks > 1:
            (group,) = trainer.model._get_fsdp_state()._fsdp_param_groups
            self.whole.add(any(parameter.unsharded_param.grad is not None for parameter in group.fsdp_params))


def _scalars(world, tokenizer, make_model, folder):
    """What strategies reduce: sum of squares, a penalty, the Fisher of some rows; and the model, exported."""
    training = {"sequence_length": 64, "tokens_per_step": 1024}
    config = small_config({}, evaluation={"gain": [], "retention": []}, training=training)
    trainer = make_trainer(config, make_model(1), tokenizer, world)
    model, trainer.experience = trainer.model, trainer.stream[0]
    trainer.make_optimizer()
    save_model(model, tokenizer, folder / "model", world)
    squares = reduce_sum(model, sum(shard.square().sum() for _, shard in shards(model)))
    anchor = {name: shard + 0.1 for name, shard in clone_shards(model).items()}
    rows = trainer.sample_rows(GENERAL, part="fisher", rows=3)
    parameter = next(iter(model.parameters()))
    return {
        "squares": squares.item(),
        "penalty": quadratic_penalty(model, anchor, 3.0),
        "fisher": mean_squared_gradients(model, rows, trainer.row_gradient),
        "held": sum(shard.numel() for _, shard in shards(model)),
        "placements": [str(p) for p in parameter.placements] if isinstance(parameter, DTensor) else [],
    }


def test_ranks_that_do_not_divide_into_copies_are_refused():
    with pytest.raises(UserError, match=r"shard_ranks is 8, but 12 processes were started: start a multiple of 8"):
        make_mesh("cpu", 12, 8)


WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "compute_120"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 3), (12, 0), (13, 0)])
def test_a_gpu_that_torch_was_built_for(capability):
    refuse_unfit_gpu(capability, WHEEL, "fp16")


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 2), (9, 1), (11, 0)])
def test_a_gpu_that_torch_was_not_built_for(capability):
    with pytest.raises(UserError, match=r"compute capability \d+\.\d, but the installed torch .* sm_75, sm_80"):
        refuse_unfit_gpu(capability, WHEEL, "fp32")


def test_bf16_without_units_for_it():
    refuse_unfit_gpu((8, 0), WHEEL, "bf16")
    with pytest.raises(UserError, match=r"7\.5\) has no units for it.*Use precision: fp16"):
        refuse_unfit_gpu((7, 5), WHEEL, "bf16")


def test_one_process_instead_of_several_is_refused():
    """What accelerate leaves behind; a whole launch is in tests/test_launch.py."""
    launched = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no"}
    refuse_lost_ranks(launched)
    refuse_lost_ranks({"MASTER_ADDR": "127.0.0.1", "RANK": "0", **launched})
    with pytest.raises(UserError, match="accelerate launch was asked for several processes but started only one"):
        refuse_lost_ranks({"MASTER_ADDR": "127.0.0.1", **launched})


@pytest.mark.parametrize(
    "setting", [{"precision": "fp16"}, {"shard_ranks": 2}, {"cpu_offload": True}, {"reduce_gradients": "step"}]
)
def test_what_needs_shards_is_refused_without(setting):
    with pytest.raises(ValueError, match="sharding full or auto"):
        TrainingConfig.model_validate({"sequence_length": 8, "tokens_per_step": 8, "sharding": "none", **setting})
