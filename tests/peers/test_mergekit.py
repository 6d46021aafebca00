"""`merge` against mergekit's TIES: what a run ends with is what mergekit makes of the models it trained.

mergekit has no MagMax; tests/strategies/test_weight_space.py has it place by place.
"""

import pytest
import torch
from safetensors.torch import load_file

from clmed.training.sharding import World
from tests.small import full_state, make_trainer, small_config

merge_kit = pytest.importorskip("mergekit.merge", reason="mergekit is not installed (extra `peers`)")


class Keep:
    """The model as it was trained, in a folder of its own: before the strategies and after each experience."""

    supports_distributed = True

    def __init__(self, folder):
        self.folder, self.models = folder, []

    def before_training(self, trainer, **kwargs):
        self.keep(trainer.model)

    def after_training_exp(self, trainer, **kwargs):
        self.keep(trainer.model)

    def keep(self, model):
        self.models.append(str(self.folder / f"model-{len(self.models)}"))
        model.save_pretrained(self.models[-1])


def by_mergekit(models, scale, density, folder):
    from mergekit.config import MergeConfiguration
    from mergekit.options import MergeOptions

    base, *trained = models
    config = {
        "merge_method": "ties",
        "base_model": base,
        "models": [{"model": model, "parameters": {"weight": 1.0, "density": density}} for model in trained],
        "parameters": {"lambda": scale, "normalize": True},
        "dtype": "float32",
    }
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    merge_kit.run_merge(MergeConfiguration.model_validate(config), str(folder), options)
    return load_file(folder / "model.safetensors")


def undecided(changes):
    """Where the two may differ: several changes are equally large and the last to stay, or the sum is exactly 0.

    mergekit keeps one of the equal ones, clmed all; of a sum of 0 mergekit takes the positive changes, clmed none.
    """
    found = (sum(changes) == 0) & (changes[0] != 0)
    for change in changes:
        last = change.abs() == change[change != 0].abs().min()
        found |= last if last.sum() > 1 else False
    return found


@pytest.mark.parametrize(("scale", "density"), [(1.0, 0.2), (0.7, 0.5)])
def test_ties(scale, density, tokenizer, make_model, tmp_path):
    given = {"merge": {"method": "ties", "scale": scale, "density": density}}
    config = small_config(given, evaluation={"gain": [], "retention": []})
    trainer = make_trainer(config, make_model(2), tokenizer, World())
    merge = trainer.plugins[0]
    trainer.plugins.insert(0, keep := Keep(tmp_path))
    trainer.train(trainer.stream)
    expected = by_mergekit(keep.models, scale, density, tmp_path / "merged")
    found, base = full_state(trainer.model), load_file(f"{keep.models[0]}/model.safetensors")
    assert found.keys() == expected.keys() and len(keep.models) == 3
    places = 0
    for name, weight in found.items():
        settled = ~undecided([change[name] for change in merge.changes])
        torch.testing.assert_close(weight[settled], expected[name][settled], rtol=0, atol=1e-6)
        assert (weight - base[name]).abs().max() > 1e-4, "nothing was merged"
        places += int(settled.sum())
    assert places > 0.99 * sum(weight.numel() for weight in found.values())
