"""A run that is interrupted anywhere and goes on ends as the undisturbed one does, bit for bit."""

import shutil

import numpy as np
import pytest
import torch

from clmed.results import manifest
from clmed.results.manifest import KEPT, MANIFEST
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World
from tests.small import GENERAL, full_state, make_trainer, on_ranks, small_config

STRATEGIES = {
    "naive": {},
    "replay+ewc": {
        "replay": {"ratio": 0.25, "from": [*GENERAL, "past"], "memory": 20, "select": "surprise"},
        "ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 6},
    },
    "ewc-separate": {"ewc": {"strength": 100.0, "fisher_from": GENERAL, "rows": 6, "mode": "separate"}},
    "l2": {"l2": {"strength": 1.0}},
    "agem": {"agem": {"from": [*GENERAL, "past"], "memory": 30, "rows": 5}},
    "distill": {"distill": {"strength": 5.0}},
    "distill-stored": {"distill": {"strength": 5.0, "teacher": "stored", "rows": 50, "top": 7}},
    "der": {"der": {"from": [*GENERAL, "past"], "ratio": 0.25, "memory": 20, "alpha": 0.1, "top": 7}},
    "interleave": {"interleave": {"every": 3, "from": GENERAL}},
    "soup+average": {"soup": {"every": 0.4}, "average": {"towards": "base"}},
    "ema": {"ema": {"decay": 0.5}},
    "merge+freeze": {"merge": {"method": "ties"}, "freeze": {"layers": 1}},
    "curriculum": {"curriculum": {"of": ["medical"], "reference": ["exam"], "keep": 0.3}},
    "self_synthesis": {"self_synthesis": {"ratio": 0.25, "rows": 6}},
    "lora": {"lora": {"rank": 4}},
    "olora": {"olora": {"rank": 4, "targets": ["q_proj", "v_proj"]}},
    "osft": {"osft": {}},
    "block_expansion": {"block_expansion": {"every": 2}},
}
STRUCTURAL = ("lora", "olora", "osft", "block_expansion")  # what they made of the model has to be made again
SAVE_EVERY = 3


class Power:
    """Cuts the power in the given callback, the n-th time it comes."""

    supports_distributed = True

    def __init__(self, callback, times):
        self.callback, self.left = callback, times

    def __getattr__(self, name):
        if name != self.callback:
            raise AttributeError(name)
        return self._cut

    def _cut(self, trainer, **kwargs):
        self.left -= 1
        if not self.left:
            raise PowerCutError


class PowerCutError(Exception):
    pass


def trainer_in(folder, strategy, world, tokenizer, make_model):
    checkpoints = Checkpoints(folder, world=world)
    config = small_config(strategy)
    trainer = make_trainer(config, make_model(1), tokenizer, world, checkpoints=checkpoints, save_every=SAVE_EVERY)
    return trainer, checkpoints


def outcome(trainer):
    kept = {name: getattr(trainer, name) for name in ("point", "tokens", "all_tokens", "bytes", "flops")}
    return {"weights": full_state(trainer.model), "kept": kept, "steps": trainer.clock.train_iterations}


def undisturbed(folder, strategy, world, tokenizer, make_model):
    trainer, _ = trainer_in(folder, strategy, world, tokenizer, make_model)
    trainer.train(trainer.stream)
    return outcome(trainer)


def interrupted(folder, strategy, world, tokenizer, make_model, cuts):
    """Run until the power is cut, again and again, then to the end; also where it went on from each time."""
    places = []
    for callback, times in cuts:
        trainer, checkpoints = trainer_in(folder, strategy, world, tokenizer, make_model)
        trainer.plugins.insert(0, Power(callback, times))
        found = checkpoints.latest()
        with checkpoints, pytest.raises(PowerCutError):
            trainer.train(trainer.stream, found=found)
    trainer, checkpoints = trainer_in(folder, strategy, world, tokenizer, make_model)
    found = checkpoints.latest()
    places.append(found.values["clock"]["train_iterations"])
    trainer.train(trainer.stream, found=found)
    return outcome(trainer), places


def assert_same(one, other, exactly=True):
    assert one["steps"] == other["steps"]
    for name, value in one["kept"].items():
        assert other["kept"][name] == value or (name == "flops" and not exactly)  # each rank computes the Fisher's rows
    for name, weight in one["weights"].items():
        if exactly:
            assert torch.equal(other["weights"][name], weight), name
        else:
            torch.testing.assert_close(other["weights"][name], weight, rtol=0, atol=1e-5)


CUTS = {
    "in a step": [("before_update", 5)],
    "twice, in the second experience": [("after_backward", 8), ("before_update", 5)],
    "when an experience ends, before its Fisher": [("after_training_exp", 1)],
    "in a measurement": [("before_eval_exp", 5)],
}


@pytest.fixture(scope="module")
def whole_runs(tokenizer, make_model, tmp_path_factory):
    """The undisturbed run of a strategy, made once."""
    made = {}

    def get(strategy):
        if strategy not in made:
            folder = tmp_path_factory.mktemp("whole")
            made[strategy] = undisturbed(folder, STRATEGIES[strategy], World(), tokenizer, make_model)
        return made[strategy]

    return get


SECOND = "twice, in the second experience"
# What these keep or make in the first experience shows in the second.
LATER = {"der", "agem", "merge+freeze", *STRUCTURAL}
CASES = [("replay+ewc", cut) for cut in CUTS] + [
    (name, SECOND if name in LATER else "in a step") for name in STRATEGIES if name != "replay+ewc"
]


@pytest.mark.parametrize(("strategy", "cut"), CASES)
def test_goes_on_bit_for_bit(strategy, cut, whole_runs, tmp_path, tokenizer, make_model):
    given, whole = STRATEGIES[strategy], whole_runs(strategy)
    found, (place, *_) = interrupted(tmp_path / "cut", given, World(), tokenizer, make_model, CUTS[cut])
    assert 0 < place < whole["steps"], "nothing was left to do, or nothing was saved"
    assert_same(whole, found)


def test_dropout_goes_on_bit_for_bit(tmp_path, tokenizer, make_model):
    def with_dropout(seed):
        model = make_model(seed, attention_dropout=0.3)
        torch.manual_seed(seed)
        return model

    common = {}, World(), tokenizer, with_dropout
    whole = undisturbed(tmp_path / "whole", *common)
    found, _ = interrupted(tmp_path / "cut", *common, CUTS["in a step"])
    assert_same(whole, found)
    without = undisturbed(tmp_path / "without", {}, World(), tokenizer, make_model)
    assert any(not torch.equal(whole["weights"][name], weight) for name, weight in without["weights"].items())


@pytest.mark.parametrize("strategy", ["replay+ewc", "osft"])
def test_two_ranks_go_on_bit_for_bit_and_as_one(strategy, tmp_path, tokenizer, make_model):
    """Saved by two ranks: two end exactly as undisturbed ones, one within 1e-5 of them."""
    given, cuts = STRATEGIES[strategy], [("before_update", 8)]

    def both(world):
        whole = undisturbed(tmp_path / "whole", given, world, tokenizer, make_model)
        return whole, interrupted(tmp_path / "cut", given, world, tokenizer, make_model, cuts)[0]

    def until_the_cut(world):
        trainer, checkpoints = trainer_in(tmp_path / "other", given, world, tokenizer, make_model)
        trainer.plugins.insert(0, Power(*cuts[0]))
        with checkpoints, pytest.raises(PowerCutError):
            trainer.train(trainer.stream)

    whole, found = on_ranks(2, both, tmp_path)
    assert_same(whole, found)
    on_ranks(2, until_the_cut, tmp_path)
    trainer, checkpoints = trainer_in(tmp_path / "other", given, World(), tokenizer, make_model)
    trainer.train(trainer.stream, found=checkpoints.latest())
    assert_same(whole, outcome(trainer), exactly=False)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(whole_runs, tmp_path, tokenizer, make_model, caplog):
    given = STRATEGIES["replay+ewc"]
    trainer, checkpoints = trainer_in(tmp_path / "cut", given, World(), tokenizer, make_model)
    trainer.plugins.insert(0, Power("before_update", 8))
    with checkpoints, pytest.raises(PowerCutError):
        trainer.train(trainer.stream)
    newest = checkpoints.latest().path
    damage(newest / "__0_0.distcp", "flipped")
    trainer, checkpoints = trainer_in(tmp_path / "cut", given, World(), tokenizer, make_model)
    found = checkpoints.latest()
    assert found.path.name < newest.name and str(newest) in caplog.text
    trainer.train(trainer.stream, found=found)
    assert_same(whole_runs("replay+ewc"), outcome(trainer))


def damage(file, how):
    """Do to a file what disks do."""
    content = bytearray(file.read_bytes())
    if how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif how == "replaced":
        file.write_bytes(b"[]")
    else:
        file.unlink()


@pytest.mark.parametrize("how", ["truncated", "flipped", "replaced", "missing"])
@pytest.mark.parametrize("name", [MANIFEST, ".metadata", "__0_0.distcp", "__1_0.distcp"])
def test_damage_to_every_kind_of_file_is_found(name, how, saved_by_two, tmp_path, caplog):
    folder = shutil.copytree(saved_by_two, tmp_path / "checkpoints")
    damage(folder / "00000002-0" / name, how)
    checkpoints = Checkpoints(folder, world=World())
    found = checkpoints.latest()
    assert (found.path.name, found.values) == ("00000001-0", {"place": {"tokens": 1}})
    assert f"{folder}/00000002-0 is damaged ({name}" in caplog.text
    damage(folder / "00000001-0" / name, how)
    assert checkpoints.latest() is None


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory):
    """Two checkpoints, each with a file of each of two ranks."""
    folder = tmp_path_factory.mktemp("two")

    def save(world):
        with Checkpoints(folder / "checkpoints", world=world) as checkpoints:
            for number in (1, 2):
                tensors = {f"rank{world.rank}": torch.full((1000,), number)}
                checkpoints.save(f"{number:08d}-0", tensors, {"place": {"tokens": number}})

    on_ranks(2, save, folder)
    return folder / "checkpoints"


def test_an_unfinished_write_is_no_checkpoint(tmp_path, tokenizer, make_model, monkeypatch):
    trainer, checkpoints = trainer_in(tmp_path, {}, World(), tokenizer, make_model)
    trainer.plugins.insert(0, Power("before_update", 6))
    with checkpoints, pytest.raises(PowerCutError):
        trainer.train(trainer.stream)
    newest = checkpoints.latest().path
    shutil.copytree(newest, tmp_path / ".99999999-0.partial")
    assert checkpoints.latest().path == newest


def test_the_newest_are_kept_and_the_milestones_and_ends(tmp_path, tokenizer, make_model):
    checkpoints = Checkpoints(tmp_path, world=World(), keep=1)
    config, keep_at = small_config({}), [1500, 9000]
    trainer = make_trainer(
        config,
        make_model(1),
        tokenizer,
        World(),
        checkpoints=checkpoints,
        save_every=2,
        keep_at=keep_at,
        keep_ends=True,
    )
    trainer.train(trainer.stream)
    trained = [experience.batches.trained(domain_only=True) for experience in trainer.stream]
    first = len(trained[0]) - 1
    # The first steps that reach 1,500 and 9,000 tokens, and both ends; of the others the newest, which is an end.
    milestones = [np.searchsorted(trained[0], 1500), first + np.searchsorted(trained[1], 9000 - trained[0][-1])]
    expected = [
        f"{milestones[0]:08d}-0",
        f"{first:08d}-1",
        f"{milestones[1]:08d}-1",
        f"{trainer.clock.train_iterations:08d}-2",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    assert all((tmp_path / name / KEPT).exists() for name in expected)
    places = [manifest.read(tmp_path / name).values["place"] for name in expected]
    assert [place["index"] for place in places] == [0, 1, 1, 2] and places[-1]["first_step"] == 0


def test_a_milestone_at_the_end_of_an_experience_stays(tmp_path, tokenizer, make_model):
    stream = [
        {"name": name, "data": ["medical"], "tokens": 2000, "optimizer": {"lr": 1e-3}} for name in ("one", "other")
    ]
    config = small_config({}, stream=stream, evaluation={"gain": [], "retention": []})
    checkpoints = Checkpoints(tmp_path, world=World(), keep=1)
    trainer = make_trainer(config, make_model(1), tokenizer, World(), checkpoints=checkpoints)
    trained = trainer.stream[0].batches.trained(domain_only=True)
    trainer.keep_at = [int(trained[-1])]
    trainer.train(trainer.stream)
    kept = {path.name: (path / KEPT).exists() for path in tmp_path.iterdir()}
    assert kept == {f"{len(trained) - 1:08d}-1": True, f"{trainer.clock.train_iterations:08d}-2": False}


def test_without_marks_the_newest_alone_are_kept(tmp_path, tokenizer, make_model):
    trainer, _ = trainer_in(tmp_path, {}, World(), tokenizer, make_model)
    trainer.train(trainer.stream)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2 and names[-1] == f"{trainer.clock.train_iterations:08d}-2"
