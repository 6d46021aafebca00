"""Floors: verdicts by hand, and runs that warn, stop and go on."""

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from clmed.config import EvaluationConfig
from clmed.errors import StoppedError
from clmed.evaluation.floors import Change, Floors, paired
from clmed.results import manifest
from clmed.results.rundir import RunDirectory
from clmed.training.sharding import World
from tests.small import make_trainer, small_config


def test_verdicts():
    assert Change(value=-1.9, half=0.0, what="").verdict(-2.0) == "kept"
    assert Change(value=-2.5, half=0.4, what="").verdict(-2.0) == "crossed"
    assert Change(value=-2.5, half=0.6, what="").verdict(-2.0) == "unclear"
    assert Change(value=4.9, half=0.0, what="").verdict(5.0) == "kept"
    assert Change(value=5.1, half=0.0, what="").verdict(5.0) == "crossed"
    assert Change(value=3.0, half=0.0, what="").verdict(-2.0) == "kept"


def test_paired_interval_covers():
    """Of 2,000 samples of 200 questions, about 95 % of the intervals hold the true change."""
    draw = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        before = draw.random(200) < 0.6
        now = np.where(draw.random(200) < 0.2, draw.random(200) < 0.5, before)
        value, half = paired(before, now)
        hits += abs(value - 100 * 0.2 * (0.5 - 0.6)) <= half
    assert 0.93 < hits / 2000 < 0.97
    assert paired([True], [False]) == (-100.0, math.inf)


def written(folder, scores, answers, tokens=(0, 100, 200)):
    run = RunDirectory.create(folder, "name: x\n", {})
    for point, (accuracy, nats, right) in enumerate(zip(*scores, answers, strict=True)):
        common = {"point": point, "tokens": tokens[point], "category": "all", "questions": len(right)}
        run.add_results(
            [
                {**common, "benchmark": "mmlu", "metric": "accuracy", "score": accuracy},
                {**common, "benchmark": "web", "metric": "nats_per_token", "score": nats},
            ]
        )
        run.write_answers(point, "mmlu", {"correct": right})
    return run


@pytest.mark.parametrize("stop", [True, False])
def test_what_is_told(tmp_path, stop):
    """Kept, too small to tell, crossed; and which checkpoint was the last good one."""
    few, many = [True] * 6 + [False] * 4, [True] * 600 + [False] * 400
    worse = [True] * 500 + [False] * 500
    run = written(tmp_path / "a", ([0.6, 0.6, 0.5], [2.0, 2.0, 2.0]), [many, many, worse])
    said: list[str] = []
    for name, tokens in [("3-0", 200), ("2-0", 100), ("1-0", 50)]:
        (run.checkpoints / name).mkdir(parents=True)
        manifest.write(run.checkpoints / name, {}, json.dumps({"place": {"tokens": tokens}}))
    floors = Floors({"mmlu": -2.0, "web": 5.0}, stop=stop, directory=run, say=said.append)
    assert floors.look(0) == floors.look(1) == "" and said == []
    reason = floors.look(2)
    assert "floor crossed: mmlu changed by -10.00 points of accuracy" in said[0]
    assert (f"point 1 (100 tokens); the last good checkpoint is {run.checkpoints / '2-0'}" in reason) is stop

    run = written(tmp_path / "b", ([0.6, 0.5], [2.0, 2.1]), [few, [True] * 5 + [False] * 5])
    said.clear()
    floors = Floors({"mmlu": -2.0, "web": 5.0}, stop=stop, directory=run, say=said.append)
    reason = floors.look(1)
    assert "too small to tell" in said[0]
    assert "web changed by +10.52 % of perplexity against the base; the floor is +5" in said[1]
    assert ("no checkpoint of that time is kept" in reason) is stop


def test_configuration():
    section = {"retention": [{"benchmark": "mmlu", "path": "x"}, {"perplexity": "web"}]}
    read = EvaluationConfig.model_validate({**section, "floors": {"mmlu": -2, "web_perplexity": "+5%"}})
    assert read.floors == {"mmlu": -2.0, "web_perplexity": 5.0} and read.on_floor == "warn"
    assert EvaluationConfig.model_validate(read.model_dump()) == read
    for floors, message in [
        ({"mmul": -2.0}, "no benchmark 'mmul'.*mmlu"),
        ({"mmlu": "+5%"}, "points that accuracy may fall"),
        ({"web_perplexity": -2.0}, "per cent that perplexity may rise"),
        ({"mmlu": "low"}, "must be points"),
    ]:
        with pytest.raises(ValidationError, match=message):
            EvaluationConfig.model_validate({**section, "floors": floors})


def always(point: int) -> str:
    """A floor is crossed from the first point after the base on."""
    return f"stopped at a floor at point {point}" if point else ""


def test_a_run_stops_saves_and_goes_on(make_model, tokenizer, tmp_path, monkeypatch):
    """At a milestone: saved after that very step, measured once; the same command goes on from there."""
    from clmed.training.checkpoint import Checkpoints

    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    config = small_config({})
    config.stream[0].__dict__["measure_at"] = ["4k"]
    world = World(rank=0, ranks=1, mesh=None)
    checkpoints = Checkpoints(tmp_path / "checkpoints", world=world)
    first = make_trainer(config, make_model(), tokenizer, world, checkpoints=checkpoints, floors=always)
    with pytest.raises(StoppedError, match="floor at point 1"):
        first.train(first.stream)
    found = checkpoints.latest()
    assert found is not None and found.values["place"]["point"] == 2
    assert 0 < found.values["place"]["first_step"] < len(first.stream[0].batches)
    again = make_trainer(config, make_model(), tokenizer, world, checkpoints=checkpoints)
    again.train(again.stream, found=found)
    assert again.point == 4
