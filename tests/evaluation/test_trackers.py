"""TensorBoard's and W&B's files, read back: the numbers of results.jsonl and train.jsonl, each once."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clmed import experiment, validation
from clmed.errors import UserError
from clmed.evaluation import trackers
from clmed.results import metrics
from clmed.results.rundir import RunDirectory
from tests.command import write_tiny

SETTINGS = [
    "watching.tensorboard=true", "watching.wandb=trials", "watching.kl={data: english, rows: 2, every: 2}",
]  # fmt: skip
Curves = dict[str, dict[int, float]]  # name -> domain tokens -> value


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A run that both trackers follow."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("tracked")
        patch.chdir(folder)
        patch.setenv("WANDB_MODE", "offline")
        config = validation.load(write_tiny(folder), SETTINGS)
        yield experiment.run(config)


def test_both_show_the_numbers_of_the_files(run: RunDirectory) -> None:
    wanted = expected(run)
    assert {"train/kl_to_base", "train/loss/exam", "train/flops", "mmlu/all/accuracy"} < wanted.keys()
    assert {"english_perplexity/all/nats_per_token", "summary/gain", "forgetting/mmlu"} < wanted.keys()
    same(tensorboard(run), wanted)
    same(wandb(run), wanted)


def test_summaries_are_those_of_the_table(run: RunDirectory) -> None:
    rows, shown = run.results(), tensorboard(run)
    last = max(row["tokens"] for row in rows)
    assert shown["summary/gain"][last] == pytest.approx(metrics.gain(rows), abs=1e-6)
    assert shown["summary/retention"][last] == pytest.approx(metrics.retention(rows), abs=1e-6)
    for name, value in metrics.forgetting(rows).items():
        assert shown[f"forgetting/{name}"][last] == pytest.approx(value, abs=1e-6)
    assert len(shown["summary/gain"]) == len({row["point"] for row in rows})


def test_both_know_the_configuration(run: RunDirectory) -> None:
    (record,) = [record.run for record in records(run) if record.WhichOneof("record_type") == "run"]
    kept = {update.key: json.loads(update.value_json) for update in record.config.update if update.key != "_wandb"}
    assert kept == run.config()
    assert (record.project, record.run_id) == ("trials", (run.wandb / "run-id").read_text())
    (text,) = accumulator(run).Tensors("config/text_summary")
    assert "tokens_per_step: 1024" in text.tensor_proto.string_val[0].decode()


def test_a_run_that_goes_on_is_shown_once_from_its_beginning(run: RunDirectory) -> None:
    """Killed in the second experience, so that its steps and measurement are made again."""
    before, identity = expected(run), (run.wandb / "run-id").read_text()
    for newest in sorted(run.checkpoints.iterdir())[1:]:
        shutil.rmtree(newest)
    run.set_status("stopped", "a test")
    experiment.run(validation.load("tiny.yaml", SETTINGS))
    assert "going on from" in run.log.read_text()
    wanted = expected(run)
    assert wanted.keys() == before.keys() and wanted["train/loss"] == before["train/loss"]
    same(tensorboard(run), wanted)
    same(wandb(run), wanted)
    assert (run.wandb / "run-id").read_text() == identity


def test_online_the_server_gets_what_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its last step it has everything, and would refuse it."""
    sent: list[int] = []
    logger = object.__new__(trackers._WandB)
    logger.first = 2304
    logger.wandb = type("wandb", (), {"log": staticmethod(lambda values, step: sent.append(step))})
    for tokens in (0, 1536, 2304, 3072):
        logger.show({"train/loss": 1.0}, tokens)
    assert sent == [2304, 3072]


def test_a_point_is_summed_up_when_it_is_complete() -> None:
    rows = [
        {"point": point, "tokens": tokens, "role": role, "benchmark": name, "category": "all", "metric": "accuracy"}
        | {"score": score}
        for point, tokens, name, role, score in [
            (0, 0, "exam", "gain", 0.25), (0, 0, "mmlu", "retention", 0.5),
            (1, 100, "exam", "gain", 0.5), (1, 100, "mmlu", "retention", 0.4),
            (2, 200, "exam", "gain", 0.75),
        ]
    ]  # fmt: skip
    steps = [{"experience": "a", "step": i, "tokens": 50 * i, "time": 1.0, "loss": 1.0 / i} for i in (1, 2, 3)]
    shown = list(trackers.history(steps, rows, {"exam", "mmlu"}))
    assert [tokens for tokens, _ in shown] == [0, 50, 100, 100, 150, 200]
    assert shown[0][1] == {
        "exam/all/accuracy": 0.25, "mmlu/all/accuracy": 0.5, "summary/gain": 0.0, "summary/retention": 0.0,
    }  # fmt: skip
    assert shown[1][1] == {"train/loss": 1.0}
    assert shown[3][1] == {
        "exam/all/accuracy": 0.5, "mmlu/all/accuracy": 0.4, "summary/gain": 0.25,
        "summary/retention": pytest.approx(-0.1), "forgetting/exam": -0.25, "forgetting/mmlu": pytest.approx(0.1),
    }  # fmt: skip
    assert shown[5][1] == {"exam/all/accuracy": 0.75}


def test_without_a_key_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refuse(**_: Any) -> None:
        raise wandb.errors.UsageError("api_key not configured (no-tty).\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    config, run = validation.load(write_tiny(tmp_path), ["watching.wandb=trials"]), RunDirectory(tmp_path / "none")
    with pytest.raises(
        UserError, match=r"does not start \(api_key not configured \(no-tty\)\.\)\. `wandb login` gives"
    ):
        trackers.trackers(config, run, True).__enter__()
    with trackers.trackers(config, run, False) as loggers:  # another rank asks for nothing
        assert loggers == []


def expected(run: RunDirectory) -> Curves:
    """What the two files say, written down without the code under test; summaries are looked at for themselves."""
    found: Curves = {}
    for step in run.training():
        for key in step.keys() - {"experience", "step", "tokens", "time"}:
            found.setdefault(f"train/{key}", {})[step["tokens"]] = step[key]
    rows = run.results()
    for row in rows:
        name = f"{row['benchmark']}/{row['category']}/{row['metric']}"
        found.setdefault(name, {})[row["tokens"]] = row["score"]
    for point in sorted({row["point"] for row in rows}):
        until = [row for row in rows if row["point"] <= point]
        tokens = until[-1]["tokens"]
        found.setdefault("summary/gain", {})[tokens] = metrics.gain(until) or 0.0
        found.setdefault("summary/retention", {})[tokens] = metrics.retention(until) or 0.0
        for name, value in metrics.forgetting(until).items():
            found.setdefault(f"forgetting/{name}", {})[tokens] = value
    return found


def same(shown: Curves, wanted: Curves) -> None:
    assert shown.keys() == wanted.keys()
    for name, curve in wanted.items():
        assert shown[name].keys() == curve.keys(), name
        for tokens, value in curve.items():
            got = shown[name][tokens]
            assert got == pytest.approx(value, rel=1e-6) or (math.isnan(got) and math.isnan(value)), (name, tokens)


def accumulator(run: RunDirectory) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0, "tensors": 0})
    return curves.Reload()


def tensorboard(run: RunDirectory) -> Curves:
    curves = accumulator(run)
    found: Curves = {}
    for name in curves.Tags()["scalars"]:
        events = curves.Scalars(name)
        found[name] = {event.step: event.value for event in events}
        assert len(found[name]) == len(events), f"{name} has a value twice"
    return found


def wandb(run: RunDirectory) -> Curves:
    found: Curves = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            for name, value in values.items():
                if not name.startswith("_"):
                    curve = found.setdefault(name, {})
                    assert values["_step"] not in curve, f"{name} has a value twice"
                    curve[values["_step"]] = value
    return found


def records(run: RunDirectory) -> Iterator[Any]:
    """Those of the only .wandb file: LevelDB's log format (blocks of 32 KiB) behind a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = run.wandb.glob("offline-run-*/*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6] if left >= 7 else 0
        if kind == 0:  # padding to the end of the block
            at += left
            continue
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
