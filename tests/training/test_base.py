"""The base model: made once, by one rank, the same for any number of them."""

import torch

from clmed.config import ExperimentConfig
from clmed.training.base import load_base, needs_building
from clmed.training.model import load_tokenizer
from clmed.training.sharding import World
from tests.command import TINY
from tests.small import full_state, on_ranks


def test_two_ranks_make_the_base_of_one_in_an_empty_cache(tmp_path, monkeypatch):
    config = ExperimentConfig.model_validate(TINY)
    bases = {}
    for ranks in (1, 2):
        monkeypatch.setenv("CLMED_CACHE", str(tmp_path / f"cache-{ranks}"))
        assert needs_building(config)

        def make(world):
            return full_state(load_base(config, world, load_tokenizer(config)))

        bases[ranks] = make(World()) if ranks == 1 else on_ranks(2, make, tmp_path)
        assert not needs_building(config)
    for name, weight in bases[1].items():
        assert torch.equal(bases[2][name], weight), name
