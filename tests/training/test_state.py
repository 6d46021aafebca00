"""Weights alone, from checkpoints of any number of ranks and from Hugging Face folders."""

from pathlib import Path
from typing import Any

import pytest
import torch

from clmed.config import TrainingConfig
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World, shard
from clmed.training.state import collect, restore_weights
from tests.small import full_state, on_ranks

TRAINING = TrainingConfig(sequence_length=64, tokens_per_step=64)


def assert_equal(model: torch.nn.Module, wanted: dict[str, torch.Tensor]) -> None:
    found = full_state(model)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert torch.equal(found[name], weight), name


@pytest.mark.parametrize("tied", [False, True])
def test_of_a_folder(tied: bool, make_model: Any, tmp_path: Path) -> None:
    """Tied weights stand there once."""
    wanted = make_model(0, tie_word_embeddings=tied)
    wanted.save_pretrained(tmp_path)
    model = make_model(1, tie_word_embeddings=tied)
    restore_weights(tmp_path, model)
    assert_equal(model, full_state(wanted))
    ids = torch.arange(2, 12)[None]
    assert torch.equal(model(ids).logits, wanted(ids).logits)


@pytest.mark.parametrize("tied", [False, True])
def test_of_two_ranks_in_one_and_of_one_in_two(tied: bool, make_model: Any, tmp_path: Path) -> None:
    def save(world: World) -> None:
        model = shard(make_model(world.ranks, tie_word_embeddings=tied), world, TRAINING)
        with Checkpoints(tmp_path / str(world.ranks), world=world) as checkpoints:
            checkpoints.save("00000001-0", collect(model, None, [])[0], {})

    def load(world: World) -> dict[str, torch.Tensor]:
        model = shard(make_model(0, tie_word_embeddings=tied), world, TRAINING)
        restore_weights(tmp_path / "1" / "00000001-0", model)
        return full_state(model)

    def save_and_load(world: World) -> dict[str, torch.Tensor]:
        save(world)
        return load(world)

    save(World())
    loaded = on_ranks(2, save_and_load, tmp_path)
    assert_equal(make_model(1, tie_word_embeddings=tied), loaded)
    model = make_model(0, tie_word_embeddings=tied)
    restore_weights(tmp_path / "2" / "00000001-0", model)
    assert_equal(model, full_state(make_model(2, tie_word_embeddings=tied)))
