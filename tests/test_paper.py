"""The paper's experiments: each is planned for its machines, and run for a few steps by a pico model on made data.

A file that is put into the two folders is tested without writing anything here.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clmed import experiment, validation
from clmed.config import ExperimentConfig, load
from clmed.errors import UserError
from clmed.planning.estimate import Estimate
from clmed.planning.gpus import GPUS
from clmed.results.manifest import KEPT
from clmed.results.points import measured_points, weights_of
from clmed.results.rundir import RunDirectory
from clmed.results.start import named
from clmed.yamlfile import read
from tests.paper_world import SMALL, make_world

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
FOLDERS = ("llama2-13b", "chinese-llama2-13b")
OVERLAYS = {"llama2-13b/v100.yaml", "chinese-llama2-13b/model.yaml"}
EVERY = [str(file.relative_to(EXPERIMENTS)) for folder in FOLDERS for file in (EXPERIMENTS / folder).rglob("*.yaml")]
FILES = sorted(set(EVERY) - OVERLAYS)
# Tokens of one pass that the files are planned with, as docs/reproduction.md has them.
TOKENS = {"encyclopedia": 300e6, "exam": 24.5e6, "english": 100e6, "chinese": 60e6, "guidelines": 100e6}
STEP = 1024  # tokens
FEWER = ("block_expansion.every=1", "freeze.layers=1", "lora.rank=16", "self_synthesis.rows=8")


def plan(config: ExperimentConfig) -> Estimate:
    gpu, ranks = ("v100-32gb", 160) if config.training.precision == "fp16" else ("h100-80gb", 8)
    settings = {"utilisation": 0.4, "per_node": 8, "write_speed": 2e9, "given": {n: TOKENS[n] for n in config.data}}
    return Estimate(config=config, gpu=GPUS[gpu], ranks=ranks, **settings)


@pytest.mark.parametrize("file", FILES)
def test_a_file_fits_its_machines_and_fills_them(file: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.yaml"
    older.write_text(f"extends: [{EXPERIMENTS / file}, {EXPERIMENTS / 'llama2-13b/v100.yaml'}]\n")
    for config in (load(EXPERIMENTS / file), load(older)):
        made = plan(config)
        assert made.fits and made.seconds < 16 * 3600
        assert made.rows == made.ranks * made.micro * made.accumulation


@pytest.mark.parametrize("file", [file for file in FILES if load(EXPERIMENTS / file).strategy])
def test_a_method_fits_with_the_other_base(file: str) -> None:
    """As docs/reproduction.md says: two of them with fewer rows at once, for the logits of a larger vocabulary."""
    smaller = ["training.micro_batch_size=4"] if Path(file).stem in ("distill", "merge") else []
    assert plan(load(EXPERIMENTS / file, ["model.path=hfl/chinese-llama-2-13b", *smaller])).fits


def test_names_are_those_of_files_and_every_overlay_is_known() -> None:
    for file in FILES:
        folder, stem = file.split("/")[0], Path(file).stem
        assert load(EXPERIMENTS / file).name == (folder if stem == "base" else f"{folder}-{stem}")
    for file in OVERLAYS:
        assert "stream" not in read(EXPERIMENTS / file).data


class Small:
    """Runs of the files in one folder, each once, trunks before what starts from them."""

    def __init__(self) -> None:
        self.done: dict[str, RunDirectory] = {}

    def config(self, file: str) -> ExperimentConfig:
        settings = [*SMALL, f"training.tokens_per_step={STEP}"]
        for experience in load(EXPERIMENTS / file).stream:
            if experience.tokens is not None:
                settings.append(f"stream.{experience.name}.tokens={3 * STEP}")
        strategies = load(EXPERIMENTS / file).strategy  # what the pico model has no layers, and no time, for
        settings += [f"strategy.{key}" for key in FEWER if key.partition(".")[0] in strategies]
        return validation.load(EXPERIMENTS / file, settings)

    def run(self, file: str) -> RunDirectory:
        if file not in self.done:
            start = load(EXPERIMENTS / file).from_
            if start is not None:
                self.run(self.file_of(named(start)[0].name))
            self.done[file] = experiment.run(self.config(file))
        return self.done[file]

    @staticmethod
    def file_of(name: str) -> str:
        return next(file for file in FILES if load(EXPERIMENTS / file).name == name)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Any], tokenizer: Any) -> Iterator[Small]:
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLMED_CACHE", str(folder / "cache"))
        patch.setattr("datasets.load_dataset", make_world(folder, make_model, tokenizer))
        patch.setattr("clmed.experiment.plot_runs", lambda *runs, **settings: [])  # half of the time
        patch.setattr("clmed.evaluation.explanations.MOST", 8)
        patch.chdir(folder)
        yield Small()


ALIKE = (
    r".*/(base|l2|interleave|soup|ema|olora|rewarm|curriculum|half-.*|equal-.*|epoch-(?!1-answer).*)\.yaml"
    r"|chinese.*/mixed\.yaml"
)


def alike(file: str) -> bool:
    """Whether it differs little from another, which stands for it where time is short."""
    return re.fullmatch(ALIKE, file) is not None


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=[pytest.mark.full] if alike(file) else []) for file in FILES]
)
def test_a_file_runs(file: str, small: Small) -> None:
    if file.endswith("explanation-first.yaml"):  # its answers are read in generated explanations
        pytest.importorskip("rouge_chinese", reason="extra `reasoning`")
    run = small.run(file)
    config = ExperimentConfig.model_validate(run.config())
    assert run.status()["state"] == "complete"
    steps = [row["experience"] for row in run.training()]
    for name in dict.fromkeys(steps):
        assert steps.count(name) >= 3
    measured = {row["benchmark"] for row in run.results() if row["final"] and row["experience"] == steps[-1]}
    assert measured == {each.label for each in (*config.evaluation.gain, *config.evaluation.retention)}
    if config.from_ is not None:
        trunk, point = named(config.from_)
        old = [row for row in RunDirectory(trunk).results() if row["point"] <= int(point)]
        assert {row["point"] for row in run.results()} == {row["point"] for row in old} | {int(point) + 1}
        taken = {row["point"] for row in run.results() if row.get("taken_from")}
        assert taken == {row["point"] for row in old}


def test_the_trunk_keeps_the_weights_after_each_epoch(small: Small) -> None:
    trunk = small.run("llama2-13b/naive.yaml")
    again = experiment.run(small.config("llama2-13b/naive.yaml").model_copy(update={"name": "again"}))
    assert all(row.get("taken_from") for row in again.results())
    for run in (trunk, again):
        base, *inside, _ = points = measured_points(run.results())
        assert [(point.experience, point.final) for point in points] == [
            *(("base", True), ("medical-pretraining", False), ("medical-pretraining", False)),
            *(("medical-pretraining", True), ("exam-finetuning", True)),
        ]
        for epochs, point in enumerate(inside, start=1):
            assert (weights_of(run, point) / KEPT).exists()
            assert abs(point.tokens - epochs * inside[-1].tokens / 3) < STEP
        with pytest.raises(UserError, match=r"need training.keep_measured or training.keep_at: \[0\]"):
            weights_of(run, base)
