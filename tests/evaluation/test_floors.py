"""Floors: verdicts by hand, and runs that warn, stop and go on."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from pydantic import ValidationError

from clmed.config import EvaluationConfig
from clmed.errors import StoppedError
from clmed.evaluation.evaluator import RunWriter
from clmed.evaluation.floors import Change, Floors, paired, paired_texts
from clmed.results import manifest
from clmed.results.rundir import RunDirectory
from clmed.training.checkpoint import Checkpoints
from clmed.training.sharding import World
from tests.command import in_process, write_tiny
from tests.small import make_trainer, on_ranks, small_config


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


@pytest.mark.parametrize("questions", [1, 2, 3, 6, 10, 30])
def test_questions_that_all_fell(questions):
    """They do not vary, however few they are. Of a sign test, six are the first with p < 0.05."""
    value, half = paired([True] * questions, [False] * questions)
    assert value == -100.0 and half > 0
    assert Change(value=value, half=half, what="").verdict(-2.0) == ("unclear" if questions < 4 else "crossed")
    assert paired([True] * questions, [True] * questions)[0] == 0.0


def test_the_interval_by_hand():
    """40 questions, 10 of which fell and 3 rose: Bonett and Price's adjusted Wald interval."""
    before = [True] * 10 + [False] * 3 + [True] * 27
    now = [False] * 10 + [True] * 3 + [True] * 27
    fell, rose = 11 / 42, 4 / 42
    centre, deviation = rose - fell, math.sqrt((fell + rose - (rose - fell) ** 2) / 42)
    value, half = paired(before, now)
    assert value == pytest.approx(-17.5)
    assert value + half == pytest.approx(100 * (centre + 1.959964 * deviation))


def test_an_interval_over_subjects_covers():
    """Four small subjects beside a large one, in which nothing changes: the interval is that of the subjects' mean."""
    draw = np.random.default_rng(0)
    subjects = np.repeat([*"abcde"], [15, 20, 25, 30, 310])
    small = subjects != "e"
    true, hits, pooled = 100 * 4 / 5 * 0.5 * (0.3 - 0.6), 0, 0
    for _ in range(1000):
        before = draw.random(400) < 0.6
        now = np.where(small & (draw.random(400) < 0.5), draw.random(400) < 0.3, before)
        value, half = paired(before, now, subjects)
        hits += abs(value - true) <= half
        pooled += abs(value - true) <= paired(before, now)[1]
    assert 0.93 < hits / 1000 < 0.975 and pooled / 1000 < 0.7


def test_an_interval_over_subjects_by_hand():
    """One subject is the plain mean; of several, the variance of a stratified mean and two questions more."""
    before, now = [True] * 10 + [False] * 30, [False] * 8 + [True] * 2 + [False] * 25 + [True] * 5
    assert paired(before, now, ["a"] * 40) == paired(before, now)
    value, half = paired(before, now, ["a"] * 10 + ["b"] * 30)
    assert value == pytest.approx(100 * (-8 / 10 + 5 / 30) / 2)
    of_a, of_b = 0.8 * 0.2 / 9, 5 / 30 * 25 / 30 / 29  # each mean's variance
    n = 4 / (1 / 10 + 1 / 30)
    added = 2 * (1 + n * (value / 100) ** 2 / (n + 2)) / (n + 2) ** 2
    sigma = math.sqrt((of_a + of_b) / 4 * (n / (n + 2)) ** 2 + added)
    assert half == pytest.approx(abs(value) * 2 / (n + 2) + 196 * sigma, rel=1e-4)


def test_a_floor_of_an_average_over_subjects(tmp_path):
    """One subject of five questions fell, which is half of the score: its few questions tell too little."""
    run = RunDirectory.create(tmp_path / "a", "name: x\n", {})
    subjects = ["law"] * 5 + ["art"] * 995
    for point, right in enumerate([[True] * 1000, [False, *[True] * 999]]):
        score = (sum(right[:5]) / 5 + 1) / 2
        row = {"point": point, "tokens": point, "category": "all", "questions": 1000}
        run.add_results([{**row, "benchmark": "cmmlu", "metric": "accuracy", "score": score}])
        run.write_answers(point, "cmmlu", {"subject": subjects, "correct": right})
    change = Floors({}, stop=False, directory=run, say=print).change(1, "cmmlu")
    assert change.value == pytest.approx(-10) and change.verdict(-2.0) == "unclear"
    assert paired([True] * 1000, [False, *[True] * 999])[1] < 1  # what 1,000 questions at once would tell


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
        run.write_answers(point, "web", {"nats": [10 * nats] * 5, "tokens": [10] * 5})
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
    # It stays when the stop is saved, which makes three of at most two.
    assert [(run.checkpoints / name / manifest.KEPT).exists() for name in ("3-0", "2-0", "1-0")] == [False, stop, False]

    run = written(tmp_path / "b", ([0.6, 0.5], [2.0, 2.1]), [few, [True] * 5 + [False] * 5])
    said.clear()
    floors = Floors({"mmlu": -2.0, "web": 5.0}, stop=stop, directory=run, say=said.append)
    reason = floors.look(1)
    assert "too small to tell" in said[0]
    assert "web changed by +10.52 % of perplexity against the base; the floor is +5" in said[1]
    assert ("no checkpoint of that time is kept" in reason) is stop


@pytest.mark.parametrize("content", [b"", b"{", b"[]", None])
def test_a_damaged_manifest_is_passed_over(tmp_path, content):
    """And told, in words."""
    right, wrong = [True] * 50, [False] * 50
    run = written(tmp_path / "a", ([1.0, 0.0], [2.0, 2.0]), [right, wrong])
    for name in ("2-0", "1-0"):
        (run.checkpoints / name).mkdir(parents=True)
        manifest.write(run.checkpoints / name, {}, json.dumps({"place": {"tokens": 0}}))
    damaged = run.checkpoints / "2-0" / manifest.MANIFEST
    damaged.unlink() if content is None else damaged.write_bytes(content)
    reason = Floors({"mmlu": -2.0}, stop=True, directory=run, say=lambda message: None).look(1)
    assert f"the last good checkpoint is {run.checkpoints / '1-0'}; passed over {damaged.parent}" in reason
    assert "which is damaged (manifest.json" in reason and "\n" not in reason


def test_an_interval_of_perplexity_covers():
    """Of 2,000 samples of 100 rows of different lengths, about 97.5 % of the lower ends are below the true change."""
    draw = np.random.default_rng(0)
    below = 0
    true = 100 * math.expm1(0.05)
    for _ in range(2000):
        tokens = draw.integers(20, 64, 100)
        before = tokens * draw.normal(3.0, 0.5, 100)
        now = before + tokens * draw.normal(0.05, 0.1, 100) + draw.normal(0, 2, 100)
        value, half = paired_texts({"nats": before, "tokens": tokens}, {"nats": now, "tokens": tokens})
        assert value == pytest.approx(100 * (math.exp((now - before).sum() / tokens.sum()) - 1))
        below += value - half > true
    assert 0.015 < below / 2000 < 0.04


def test_too_little_text_to_tell():
    few = {"nats": [10.0, 10.0], "tokens": [10, 10]}
    value, half = paired_texts(few, {"nats": [10.0, 14.0], "tokens": [10, 10]})
    assert value == pytest.approx(100 * math.expm1(0.2)) and half > value
    assert Change(value=value, half=half, what="").verdict(5.0) == "unclear"
    assert paired_texts({"nats": [1.0], "tokens": [10]}, {"nats": [9.0], "tokens": [10]})[1] == math.inf
    value, half = paired_texts(few, {"nats": [1e5, 1e5], "tokens": [10, 10]})
    assert Change(value=value, half=half, what="").verdict(5.0) == "crossed"


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


def ruined(**changes):
    """A first experience that changes next to nothing, then one with a rate that ruins any model."""
    config = small_config({}, **changes)
    for experience, lr in zip(config.stream, (1e-7, 0.5), strict=True):
        experience.optimizer.__dict__["lr"] = lr
    return config


def test_two_ranks_stop_together(make_model, tokenizer, tmp_path, monkeypatch):
    """The first rank looks and all stop: after the same save, with the same words."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    config = ruined()
    run = RunDirectory.create(tmp_path / "run", "name: x\n", {})

    def on_rank(world):
        said: list[str] = []
        floors = Floors({"english_perplexity": 5.0}, stop=True, directory=run, say=said.append)
        shots = {"cmexam": 0, "mmlu": 0, "english_perplexity": 0}
        trainer = make_trainer(
            config,
            make_model(),
            tokenizer,
            world,
            checkpoints=Checkpoints(run.checkpoints, world=world),
            loggers=[RunWriter(run, shots, said.append)] if world.main else [],
            floors=floors.look,
        )
        with pytest.raises(StoppedError) as stopped:
            trainer.train(trainer.stream)
        found: list[Any] = [None, None]
        dist.all_gather_object(found, (str(stopped.value), trainer.point, trainer.clock.train_iterations))
        return found, said

    found, said = on_ranks(2, on_rank, tmp_path)
    assert found[0] == found[1]
    reason, point, steps = found[0]
    assert point == 3 and any("floor crossed: english_perplexity" in told for told in said)
    names = [path.name for path in manifest.checkpoints(run.checkpoints)]
    assert names[0] == f"{steps:08d}-2" and len(names) == 2
    assert reason.endswith(f"the last good checkpoint is {run.checkpoints / names[1]}")
    assert {len(run.answers(p, "english_perplexity")["nats"]) for p in range(3)} == {
        len(run.answers(0, "english_perplexity")["tokens"])
    }


def test_the_command_stops_at_a_floor(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    file = write_tiny(tmp_path)
    run = tmp_path / "run"
    settings = ["evaluation.floors={english_perplexity: +5%, mmlu: -90}", "evaluation.on_floor=stop"]
    rates = ["stream.0.optimizer.lr=1e-7", "stream.1.optimizer.lr=5"]
    done = in_process(capfd, "run", str(file), "-o", str(run), *settings, *rates)
    assert done.code == 75, done.err
    reason = RunDirectory.open(run).status()["reason"]
    _newest, good = manifest.checkpoints(run / "checkpoints")
    assert "stopped at a floor: english_perplexity changed by +" in reason and "the floor is +5" in reason
    assert reason.endswith(f"the last good checkpoint is {good}")
    assert manifest.read_whole(good).values["place"]["point"] == 3
    assert reason in done.out and "the same command goes on from there" in done.out
    assert RunDirectory.open(run).status()["state"] == "stopped"


def test_tasks_of_the_harness(tmp_path):
    """Perplexities in per cent, shares of a point question by question, other metrics in their own points."""
    run = RunDirectory.create(tmp_path, "name: x\n", {})
    found = {"wiki": ("word_perplexity", 20.0, 21.5), "mc2": ("acc", 0.55, 0.50), "wmt": ("bleu", 30.0, 28.5)}
    for point in (0, 1):
        common = {"point": point, "tokens": point, "category": "all", "questions": 2}
        run.add_results(
            [{**common, "benchmark": name, "metric": m, "score": s[point]} for name, (m, *s) in found.items()]
        )
        for name in found:
            run.write_answers(point, name, {"correct": [None, None], "score": [0.8, 0.3 - 0.1 * point]})
    floors = Floors({}, stop=False, directory=run, say=print)
    assert floors.change(1, "wiki") == Change(value=pytest.approx(7.5), half=0.0, what="% of word_perplexity")
    assert floors.change(1, "wmt") == Change(value=pytest.approx(-1.5), half=0.0, what="points of bleu")
    change = floors.change(1, "mc2")
    assert change.value == pytest.approx(-5.0) and change.half == pytest.approx(
        2.5 + 1.959964 * np.std([0, -10, 100, -100]) / 2
    )
