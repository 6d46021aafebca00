"""Writing a model, sharded or not, as a Hugging Face folder; and so that of a run, at a point of it, with its card."""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.config import ExperimentConfig, load
from clmed.errors import UserError
from clmed.results import manifest
from clmed.results.card import model_card
from clmed.results.points import find_point, measured_points, weights_of
from clmed.results.rundir import CONFIG, RunDirectory, disk_errors
from clmed.strategy import Strategy, changing, make_strategies
from clmed.stream import make_phases
from clmed.training.model import load_model, load_tokenizer, new_model
from clmed.training.sharding import World, on_first_rank
from clmed.training.state import restore_weights
from clmed.training.structure import Structure

CARD = "README.md"

log = logging.getLogger(__name__)


def export(run: RunDirectory, output: Path | None = None, wanted: str | None = None) -> Path:
    """The model of a run as a folder with weights, tokenizer and model card: `output`, by default one inside the run.

    wanted: a measurement point (clmed/results/points.py); by default the end of a finished run and the newest
    checkpoint of another, whatever the number of ranks that saved it. This process alone holds the whole model.
    Raises UserError if the weights were not kept or are damaged, or the folder is there already.
    """
    config = load(run.path / CONFIG)
    points = measured_points(run.results())
    if wanted is not None:
        point = find_point(run, wanted)
        source, tokens, name = weights_of(run, point), point.tokens, point.name
        points = points[: points.index(point) + 1]
    elif run.status()["state"] == "complete":
        source, tokens, name = run.model, points[-1].tokens if points else 0, points[-1].name if points else "end"
    else:
        source, tokens = _newest(run)
        name = source.name
        points = [point for point in points if point.tokens <= tokens]
    folder = output or run.exports / name
    if folder.exists():
        raise UserError(f"{folder} is there already; give another folder with --output, or remove it.")
    card = model_card(run.config(), run.results(), points, tokens, str(run.path))
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if source == run.model:
            with new_folder(folder) as partial:
                shutil.copytree(source, partial)
                (partial / CARD).write_text(card, encoding="utf-8")
        else:
            tokenizer, strategies = load_tokenizer(config), make_strategies(config)
            model = _with_weights(config, tokenizer, source, strategies)
            save_model(model, tokenizer, folder, World(), strategies, card)
    return folder


def _newest(run: RunDirectory) -> tuple[Path, int]:
    """The newest good checkpoint and its domain tokens."""
    for folder in manifest.checkpoints(run.checkpoints):
        try:
            return folder, manifest.read_whole(folder).values["place"]["tokens"]
        except ValueError as error:
            log.warning("checkpoint %s is damaged (%s): going back to the one before it", folder, error)
    raise UserError(f"{run.path} is not finished and has no checkpoint yet, so there is no model to export.")


def _with_weights(
    config: ExperimentConfig, tokenizer: PreTrainedTokenizerBase, checkpoint: Path, strategies: Sequence[Strategy]
) -> PreTrainedModel:
    """The run's model with the weights of a checkpoint, and the structure that the strategies had made by then."""
    try:
        place = manifest.read_whole(checkpoint).values["place"]
    except ValueError as error:
        raise UserError(f"checkpoint {checkpoint} is damaged ({error}), so its model cannot be exported.") from error
    build = config.model.build
    model = load_model(config.model, config.training, World()) if build is None else new_model(build, tokenizer)
    begun = place["index"] + (place["first_step"] > 0)
    phases = make_phases(config.stream, strategies, config.seed)[:begun]
    model = Structure(model, strategies, World(), config.training).changed(model, phases)
    restore_weights(checkpoint, model)
    return model


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    world: World,
    strategies: Sequence[Strategy] = (),
    card: str = "",
) -> None:
    """Write a model, its tokenizer and any card so that `AutoModelForCausalLM.from_pretrained(folder)` loads it.

    Every rank of `world` must call it; its first writes, into a temporary folder that is renamed when it is whole.
    Raises OSError, on all ranks, if it cannot be written, and leaves nothing of it.
    """
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def write() -> None:
        with new_folder(folder) as partial, plain_errors(partial):
            partial.mkdir(parents=True)
            weights: dict[str, Any] = dict(state)
            for strategy in reversed(changing(strategies)):  # the last to change it is the first to be undone
                weights = strategy.exported(model, weights, partial)
            model.save_pretrained(partial, state_dict=weights)
            tokenizer.save_pretrained(partial)
            if card:
                (partial / CARD).write_text(card, encoding="utf-8")

    on_first_rank(world, write)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """The path of a folder to be made, which gets its name, in place of an old one, when it is whole; else it goes."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """safetensors and tokenizers tell the system's errors as text only; here they are an OSError again."""
    try:
        yield
    except Exception as error:  # the one of tokenizers is a bare Exception
        if isinstance(error, OSError) or not (code := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error
