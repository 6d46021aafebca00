"""The base model that a configuration describes: made once, pretrained by the trainer of every experience, cached."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import (
    BuildConfig,
    ExperienceConfig,
    ExperimentConfig,
    ModelConfig,
    PretrainConfig,
    TrainingConfig,
    fingerprint,
)
from clmed.data.cache import build_once, cache_dir
from clmed.data.cleaning import LeftOut
from clmed.data.corpus import NOTHING, Corpus
from clmed.errors import UserError
from clmed.stream import make_scenario
from clmed.training.export import save_model
from clmed.training.model import load_model, load_tokenizer, new_model, sources_fingerprint
from clmed.training.sharding import World, await_base
from clmed.training.trainer import ContinualTrainer

RECIPE = 3  # raised when a change of the code changes the weights that come out


def base_folder(config: ExperimentConfig, build: BuildConfig, left_out: LeftOut = NOTHING) -> Path:
    """Where the base of this configuration is cached, by the content of everything that makes it."""
    names = [*build.tokenizer_from, *(build.pretrain.data if build.pretrain else [])]
    recipe = {
        "recipe": RECIPE,
        "build": build.model_dump(mode="json"),
        "sources": sources_fingerprint(config, names),
        "versions": [torch.__version__, transformers.__version__],
    }
    without = {
        name: sorted(left_out[name]) for name in (build.pretrain.data if build.pretrain else []) if name in left_out
    }
    if any(without.values()):
        recipe["left_out"] = without
    return cache_dir() / "models" / fingerprint(recipe)


def build_base(
    config: ExperimentConfig,
    build: BuildConfig,
    tokenizer: PreTrainedTokenizerBase,
    watchers: Sequence[Any] = (),
    left_out: LeftOut = NOTHING,
) -> Path:
    """Make the base model unless it is cached: this process alone, on the CPU, whatever the number of ranks."""

    def make(folder: Path) -> None:
        alone = World()  # even where there are other ranks
        model = new_model(build, tokenizer)
        if build.pretrain is not None:
            corpus = Corpus.of(config, tokenizer, build.pretrain.sequence_length, left_out)
            experience, training = _as_experience(build.pretrain)
            scenario = make_scenario([experience], training=training, corpus=corpus, strategies=[], seed=build.seed)
            ContinualTrainer(model=model, world=alone, corpus=corpus, watchers=watchers).train(
                scenario.streams["train"]
            )
        save_model(model, tokenizer, folder / "model", alone)

    return build_once(base_folder(config, build, left_out), make) / "model"


def _as_experience(pretrain: PretrainConfig) -> tuple[ExperienceConfig, TrainingConfig]:
    experience = ExperienceConfig(
        name="pretraining-of-the-base",
        data=pretrain.data,
        epochs=pretrain.epochs,
        tokens=pretrain.tokens,
        optimizer=pretrain.optimizer,
    )
    training = TrainingConfig(
        sequence_length=pretrain.sequence_length,
        tokens_per_step=pretrain.tokens_per_step,
        micro_batch_size=pretrain.micro_batch_size,
    )
    return experience, training


def load_base(
    config: ExperimentConfig,
    world: World,
    tokenizer: PreTrainedTokenizerBase,
    watchers: Sequence[Any] = (),
    left_out: LeftOut = NOTHING,
) -> PreTrainedModel:
    """The base model, on its device and sharded; where it has to be made, the first rank makes it."""
    model = config.model
    if model.build is not None:
        folder = build_base(config, model.build, tokenizer, watchers, left_out) if world.main else None
        await_base(world)
        model = ModelConfig(path=str(folder or build_base(config, model.build, tokenizer, left_out=left_out)))
    return load_model(model, config.training, world)


def untrained_base(config: ExperimentConfig, world: World, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model of the shape of the base that is still to be made."""
    assert config.model.build is not None
    model: PreTrainedModel = new_model(config.model.build, tokenizer)
    return model.to(world.device)  # type: ignore[arg-type]


def refuse_unknown_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError where the tokenizer has tokens without an embedding, often a padding token that was added."""
    embeddings: Any = model.get_input_embeddings()
    largest, known = max(tokenizer.get_vocab().values()), embeddings.num_embeddings
    if largest >= known:
        raise UserError(
            f"The tokenizer of {tokenizer.name_or_path} has tokens up to number {largest:,} "
            f"({tokenizer.convert_ids_to_tokens(largest)}), but the model has embeddings for {known:,} only. Take the "
            "model's own tokenizer, or save the model after `model.resize_token_embeddings(len(tokenizer))`."
        )


def needs_building(config: ExperimentConfig, left_out: LeftOut = NOTHING) -> bool:
    """Whether the base is still to be made."""
    build = config.model.build
    return build is not None and not (base_folder(config, build, left_out) / "model").is_dir()


def build_tokens(config: ExperimentConfig, left_out: LeftOut = NOTHING) -> int:
    """Tokens that the base will be pretrained on."""
    build = config.model.build
    if build is None or build.pretrain is None:
        return 0
    if build.pretrain.tokens is not None:
        return build.pretrain.tokens
    corpus = Corpus.of(config, load_tokenizer(config), build.pretrain.sequence_length, left_out)
    tokens = sum(int(corpus.rows(name).tokens.sum()) for name in build.pretrain.data)
    return round(tokens * (build.pretrain.epochs or 0))
