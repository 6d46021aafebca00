"""What one run gives to others: a start at one of its points, the experiences they share, and its models."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from clmed import validation
from clmed.errors import UserError
from clmed.results import manifest
from clmed.results.points import find_point, measured_points
from clmed.results.rundir import RunDirectory
from clmed.results.start import find_start, named
from clmed.training.export import export
from tests.bench import Bench, assert_same, benched, comparable
from tests.command import files, in_process, process


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with benched(tmp_path_factory.mktemp("branching")) as bench:
        yield bench


@pytest.fixture(scope="module")
def trunk(bench: Bench) -> RunDirectory:
    """Pretraining (measured and kept at 2k tokens) and fine-tuning: six and three steps."""
    run = bench.run("trunk", "training.keep_at=[2k]")
    assert bench.steps == len(run.training()) == 9
    return run


OTHER_TARGET = "stream.1.tokens=3k"


@pytest.fixture(scope="module")
def sharing(bench: Bench, trunk: RunDirectory) -> RunDirectory:
    """A run that begins as the trunk does and then does something else."""
    run = bench.run("sharing", OTHER_TARGET)
    assert bench.steps == len(run.training()) - 6 == 5
    return run


def test_a_shared_beginning_is_not_trained_again_and_ends_the_same(
    bench: Bench, trunk: RunDirectory, sharing: RunDirectory
) -> None:
    alone = bench.run("alone", OTHER_TARGET, "training.share_experiences=false")
    assert bench.steps == 11
    assert_same(sharing, alone)
    taken = {row["point"] for row in sharing.results() if row.get("taken_from") == str(trunk.path)}
    own = {row["point"] for row in sharing.results() if "taken_from" not in row}
    assert (taken, own) == ({0, 1, 2}, {3})
    assert not any("taken_from" in row for row in alone.results())
    assert f"taken from {trunk.path}, which has done the same: pretraining" in sharing.log.read_text()


def test_a_shared_checkpoint_is_on_the_disk_once_and_outlives_the_first_run(
    trunk: RunDirectory, sharing: RunDirectory
) -> None:
    name = "00000006-1/__0_0.distcp"
    one, other = ((run.checkpoints / name).stat() for run in (trunk, sharing))
    assert one.st_ino == other.st_ino and one.st_nlink == 2


def test_the_base_is_measured_once_whatever_follows(bench: Bench, trunk: RunDirectory) -> None:
    run = bench.run(
        "seed", "seed=1", "strategy={}", "stream.0.measure_at=[]", "stream.0.tokens=1k", "stream.1.tokens=1k"
    )
    rows = [row for row in run.results() if row["point"] == 0]
    assert comparable(rows) == comparable([row for row in trunk.results() if row["point"] == 0])
    assert {row.get("taken_from") for row in run.results()} == {str(trunk.path), None}
    assert bench.steps == len(run.training())


SHORT = ("stream.0.measure_at=[]", "stream.0.tokens=1k", "stream.1.tokens=1k")


@pytest.fixture(scope="module")
def short(bench: Bench) -> RunDirectory:
    run = bench.run("short", *SHORT)
    shutil.rmtree(bench.run("short-again", *SHORT).path)
    assert bench.steps == 0, "nothing has changed"
    return run


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "stream.0.optimizer.lr=2e-3",
        "strategy.replay.ratio=0.5",
        "training.micro_batch_size=4",
        "model.build.seed=1",
        "evaluation.floors.mmlu=-90.0 evaluation.on_floor=stop",
    ],
)
def test_what_changes_the_result_is_not_shared(bench: Bench, short: RunDirectory, change: str) -> None:
    run = bench.run("different", *SHORT, *change.split())
    assert bench.steps == len(run.training())
    shutil.rmtree(run.path)


def test_data_that_have_changed_are_not_shared(bench: Bench, trunk: RunDirectory, tmp_path: Path) -> None:
    world = shutil.copytree(validation.data_folder(validation.load(bench.folder / "tiny.yaml")), tmp_path / "world")
    run = bench.run("same-data", f"data_root={world}")
    assert bench.steps == 0, "equal contents elsewhere are the same data"
    assert_same(run, trunk)
    shutil.rmtree(run.path)
    file = world / "medical" / "synthetic_medical_texts.jsonl"
    file.write_text(file.read_text().replace("。", "！", 1))
    run = bench.run("other-data", f"data_root={world}", "stream.1.tokens=1k")
    assert bench.steps == len(run.training())


def test_strategies_with_code_of_their_own_are_not_shared(bench: Bench, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("from clmed.strategy import Strategy\n\n\nclass Mine(Strategy):\n    pass\n")
    overrides = ("stream.0.measure_at=[]", "stream.0.tokens=1k", "stream.1.tokens=1k", f"strategy={{'{mine}:Mine': }}")
    for name in ("mine", "mine-again"):
        run = bench.run(name, *overrides)
        assert bench.steps == len(run.training()) > 0
        assert not any("taken_from" in row for row in run.results())


def test_damaged_work_is_done_again(bench: Bench, trunk: RunDirectory, sharing: RunDirectory) -> None:
    settings = ("seed=3", "stream.0.measure_at=[]", "stream.0.tokens=1k", "stream.1.tokens=1k")
    first = bench.run("damaged", *settings)
    (end,) = first.checkpoints.glob("*-1/__0_0.distcp")
    end.write_bytes(end.read_bytes()[:-1])
    second = bench.run("undamaged", *settings, "stream.1.tokens=2k")
    assert bench.steps == len(second.training())


def test_what_is_kept_inside_comes_along_or_is_made_again(bench: Bench, trunk: RunDirectory) -> None:
    for amount, kept, steps in (("2k", "00000003-0", 0), ("1k", "00000002-0", 6)):
        run = bench.run("keeping", f"training.keep_at=[{amount}]", "stream.1.tokens=1k")
        assert bench.steps == len(run.training()) - 6 + steps
        assert (run.checkpoints / kept / manifest.KEPT).exists()
        shutil.rmtree(run.path)


def test_a_stream_starts_at_a_point_of_another_run(bench: Bench, trunk: RunDirectory) -> None:
    """With its weights (a rate of almost nothing leaves them as they are), its scores and its counts."""
    for wanted, point, checkpoint in (
        ("pretraining@2k", 1, "00000003-0"),
        ("2", 2, "00000006-1"),
        ("finetuning", 3, "00000009-2"),
    ):
        leaf = bench.run(
            "leaf",
            f"from={trunk.path}@{wanted}",
            "stream=[{name: last, data: exam, tokens: 1k, optimizer: {lr: 1e-12}}]",
            "strategy={replay: {ratio: 0.25, from: [past]}}",
        )
        assert bench.steps == len(leaf.training()) > 0
        old = [row for row in trunk.results() if row["point"] <= point]
        assert comparable(leaf.results()[: len(old)]) == comparable(old)
        assert all(row["taken_from"] == str(trunk.path) for row in leaf.results()[: len(old)])
        new = leaf.results()[len(old) :]
        assert {(row["point"], row["experience"]) for row in new} == {(point + 1, "last")}
        assert (
            new[0]["tokens"]
            == old[-1]["tokens"] + leaf.training()[-1]["tokens"] - old[-1]["tokens"]
            > old[-1]["tokens"]
        )
        assert "loss/past" in leaf.training()[0], "the trunk's data are this run's past"
        weights = exported(trunk, checkpoint).state_dict()
        for name, weight in AutoModelForCausalLM.from_pretrained(leaf.model).state_dict().items():
            torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-6)
        assert (trunk.checkpoints / checkpoint / manifest.KEPT).exists()
        shutil.rmtree(leaf.path)


def test_the_ends_of_all_shared_experiences_come_along(bench: Bench, trunk: RunDirectory) -> None:
    again = bench.run("again")
    assert bench.steps == 0
    leaf = bench.run("of-again", f"from={again.path}@pretraining", LEAF[0] % "exam")
    assert bench.steps == len(leaf.training()) > 0


def test_what_follows_a_start_is_as_in_one_run(bench: Bench, trunk: RunDirectory) -> None:
    """Rows in the order of a second experience: a leaf on the trunk's own data repeats no order."""
    finetuning = "stream=[{name: finetuning, data: exam, tokens: 2k, optimizer: {lr: 1e-3}}]"
    leaf = bench.run("second-half", f"from={trunk.path}@pretraining", finetuning)
    assert bench.steps == 3
    assert files(leaf.model)["model.safetensors"] == files(trunk.model)["model.safetensors"]


def test_a_run_and_a_point_may_hold_an_at(tmp_path: Path) -> None:
    run = tmp_path / "me@home" / "run"
    RunDirectory.create(run, "name: run", {})
    assert named(f"{run}@exam@1 epoch") == (run, "exam@1 epoch")
    assert named("gone@exam@1 epoch") == (Path("gone"), "exam@1 epoch")


def test_a_checkpoint_that_would_never_be_kept_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"keep_at: 9,000 lies beyond the end of this run, which is at 6,0\d\d"):
        bench.run("beyond", "training.keep_at=[2k, 9k]")
    assert not (bench.folder / "beyond").exists()


def exported(run: RunDirectory, checkpoint: str) -> Any:
    """The model of a checkpoint, exported by its point."""
    place = manifest.read(run.checkpoints / checkpoint).values["place"]
    folder = run.exports / checkpoint
    return AutoModelForCausalLM.from_pretrained(export(run, folder, str(place["point"] - 1)))


def test_a_new_benchmark_is_measured_at_the_start_alone(bench: Bench, trunk: RunDirectory) -> None:
    leaf = bench.run(
        "measured",
        f"from={trunk.path}@pretraining",
        "stream=[{name: last, data: exam, tokens: 1k, optimizer: {lr: 1e-3}}]",
        "evaluation.retention.0.questions=10",
        "strategy={}",
    )
    points = {name: {row["point"] for row in leaf.results() if row["benchmark"] == name} for name in ("cmexam", "mmlu")}
    assert points == {"cmexam": {0, 1, 2, 3}, "mmlu": {2, 3}}


def test_all_that_came_before_is_the_past(bench: Bench, trunk: RunDirectory) -> None:
    stream = "stream=[{name: more, data: english, tokens: 1k, optimizer: {lr: 1e-3}}]"
    middle = bench.run("middle", f"from={trunk.path}@pretraining", stream, "strategy={}")
    start = find_start(validation.load(bench.folder / "tiny.yaml", [f"from={middle.path}@more"]))
    assert start is not None and start.past == (("medical",), ("english",))


def test_a_damaged_start_is_refused(bench: Bench, trunk: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(shutil.copytree(trunk.path, tmp_path / "damaged"))
    (file,) = run.checkpoints.glob("*-1/__0_0.distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"-1 is damaged \(__0_0.distcp has changed\)"):
        bench.run("leaf-of-damaged", f"from={run.path}@pretraining")
    assert not (bench.folder / "leaf-of-damaged").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("nowhere@1", "there is no such folder"),
        ("{trunk}@7", "has no measurement point '7'"),
        ("{trunk}@pretrainig", "has no measurement point 'pretrainig'; did you mean 'pretraining'?"),
        ("{trunk}@pretraining@9k", "has no measurement point 'pretraining@9k'"),
        ("{trunk}@pretraining@x", "must be a whole number"),
        ("{trunk}@0", "kept no weights of its point 0 (base), only of: 1 = pretraining@"),
        ("{trunk}", "must be RUN@POINT, such as runs/trunk@pretraining"),
    ],
)
def test_a_start_that_is_not_there_is_told(
    bench: Bench, trunk: RunDirectory, wanted: str, message: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "leaf.yaml"
    file.write_text(f"extends: {bench.folder}/tiny.yaml\nfrom: {wanted.format(trunk=trunk.path)}\n")
    in_process(capfd, "validate", str(file)).is_mistake(f"{file}, line 2: from: ", message)


def test_a_start_with_another_model_is_refused(bench: Bench, trunk: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"another model: model\.build\.layers \(2 there, 3 here\)"):
        bench.run("deeper", f"from={trunk.path}@pretraining", "model.build.layers=3")
    world = shutil.copytree(validation.data_folder(validation.load(bench.folder / "tiny.yaml")), tmp_path / "world")
    for name in ("general/synthetic_english_covered_texts.jsonl", "medical/synthetic_medical_texts.jsonl"):
        (world / name).write_text("".join(f'{{"text": "word{number} zz{number}"}}\n' for number in range(500)))
    with pytest.raises(UserError, match="has another tokenizer"):
        bench.run("retokenised", f"from={trunk.path}@pretraining", f"data_root={world}")


def test_points_have_names(trunk: RunDirectory) -> None:
    points = measured_points(trunk.results())
    assert [(point.number, point.experience, point.final) for point in points] == [
        *((0, "base", True), (1, "pretraining", False), (2, "pretraining", True), (3, "finetuning", True))
    ]
    for point in points:
        assert find_point(trunk, point.name) == find_point(trunk, str(point.number)) == point
    assert points[3].inside == points[3].tokens - points[2].tokens
    assert find_point(trunk, "pretraining@2k").number == 1 and find_point(trunk, "pretraining@4k").number == 2


LEAF = ("stream=[{name: target, data: %s, tokens: 1k, optimizer: {lr: 1e-3}}]",)


@pytest.mark.parametrize("bases", [1, pytest.param(2, marks=pytest.mark.full)])
def test_the_papers_tree_trains_a_trunk_a_base(bench: Bench, bases: int) -> None:
    """No pretraining and three points of it, two targets each: eight leaves on one trunk."""
    common = ("strategy={}", "evaluation.retention=[]", "evaluation.gain.0.questions=4")
    bench.by_experience.clear()
    leaves = trunks = 0
    for base in range(bases):
        model = (*common, f"model.build.seed={10 + base}")
        trunk = "stream=[{name: pretraining, data: medical, tokens: 3k, measure_at: [1k, 2k], optimizer: {lr: 1e-3}}]"
        run = bench.run(f"trunk-{base}", *model, trunk, "training.keep_at=[1k, 2k]")
        assert [point.number for point in measured_points(run.results())] == [0, 1, 2, 3]
        trunks += len(run.training())
        for target in ("exam", "english"):
            for point in range(4):
                start = [f"from={run.path}@{point}"] if point else []
                leaf = bench.run(f"leaf-{base}-{target}-{point}", *model, LEAF[0] % target, *start)
                leaves += 1
                assert [each.number for each in measured_points(leaf.results())] == [*range(point + 1), point + 1]
                assert {row.get("taken_from") for row in leaf.results() if row["point"] <= point} == {str(run.path)}
    assert leaves == 8 * bases and bench.by_experience["target"] >= leaves
    assert bench.by_experience["pretraining"] == trunks == 3 * bases, "a step of a trunk was done twice"


def test_export_of_a_finished_run(trunk: RunDirectory) -> None:
    folder = export(trunk)
    assert folder == trunk.exports / "finetuning"
    assert files(folder)["model.safetensors"] == files(trunk.model)["model.safetensors"]
    card = (folder / "README.md").read_text()
    rows = {
        (row["point"], row["benchmark"], row["metric"]): row["score"]
        for row in trunk.results()
        if row["category"] == "all"
    }
    before, now = rows[0, "english_perplexity", "nats_per_token"], rows[3, "english_perplexity", "nats_per_token"]
    change = f"{now - before:+.3f}".replace("-", "−")
    verdict = "better" if now < before else "worse"
    assert f"| english_perplexity | retention | {before:.3f} | {now:.3f} | {change} | {verdict} |" in card
    assert "| pretraining | medical | " in card and "| finetuning | exam | " in card and "replay (ratio 0.25" in card
    assert card.startswith("---\nlibrary_name: transformers\n") and "Measured at point 3 (finetuning)" in card
    with pytest.raises(UserError, match="is there already"):
        export(trunk)


def test_export_of_a_point_loads_with_the_same_logits(trunk: RunDirectory, tmp_path: Path) -> None:
    """The answers kept of that point follow from the exported model."""
    folder = export(trunk, tmp_path / "model", "pretraining")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(trunk.model).get_vocab()
    weights, final = model.state_dict(), AutoModelForCausalLM.from_pretrained(trunk.model).state_dict()
    assert any(not torch.equal(weights[name], final[name]) for name in weights)
    from clmed.config import load, resolve
    from clmed.data.corpus import Corpus
    from clmed.evaluation.evaluator import make_benchmarks

    config = load(trunk.path / "config.yaml")
    corpus = Corpus.of(config, tokenizer, config.training.sequence_length)
    cmexam, *_ = make_benchmarks(
        config.evaluation, path_of=lambda path: resolve(config, path), corpus=corpus, tokenizer=tokenizer, positions=512
    )
    kept, now = trunk.answers(2, "cmexam"), cmexam.measure(model).answers
    assert now["log_likelihoods"] == [pytest.approx(values, abs=1e-5) for values in kept["log_likelihoods"]]
    assert "Measured at point 2 (pretraining)" in (folder / "README.md").read_text()


def test_export_of_an_unfinished_run_takes_the_newest_good_checkpoint(
    trunk: RunDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(shutil.copytree(trunk.path, tmp_path / "stopped"))
    run.set_status("stopped", "a test")
    shutil.rmtree(run.model)
    shutil.rmtree(run.exports, ignore_errors=True)
    newest = run.checkpoints / "00000009-2" / "__0_0.distcp"
    newest.write_bytes(newest.read_bytes()[:-1])
    done = in_process(capfd, "export", str(run.path))
    folder = run.exports / "00000006-1"
    assert done.code == 0 and done.out.strip() == str(folder) and "00000009-2 is damaged" in caplog.text
    other = export(trunk, tmp_path / "same", "2")
    assert files(folder)["model.safetensors"] == files(other)["model.safetensors"]
    in_process(capfd, "export", str(run.path), "--point", "3", "-o", str(tmp_path / "no")).is_mistake("is damaged")
    shutil.rmtree(run.checkpoints)
    in_process(capfd, "export", str(run.path)).is_mistake("has no checkpoint yet")


@pytest.mark.full
def test_two_ranks_share_and_branch(bench: Bench) -> None:
    """Twice the same begins once; a run on one rank shares nothing with them, but starts at their points."""

    def two(*arguments: str) -> str:
        options = ("--nproc-per-node", "2", "-m", "clmed", "run", "tiny.yaml", "training.share_experiences=true")
        done = process(bench.folder, "torch.distributed.run", *options, *arguments)
        assert done.code == 0, done.err
        return done.out

    two("-o", "two", "name=two")
    more = two("-o", "two-more", "name=more", OTHER_TARGET)
    assert re.search(r"taken from \S*two, which has done the same: pretraining", more)
    two("-o", "two-alone", "name=alone", OTHER_TARGET, "training.share_experiences=false")
    one, other = (RunDirectory.open(bench.folder / name) for name in ("two-more", "two-alone"))
    assert_same(one, other)
    leaf = "stream=[{name: last, data: exam, tokens: 1k, optimizer: {lr: 1e-3}}]"
    assert "measured cmexam" in two("-o", "two-leaf", "name=leaf", "from=two@pretraining", leaf)
    bench.run("one-leaf", f"from={bench.folder / 'two'}@pretraining", leaf)
    ends = [AutoModelForCausalLM.from_pretrained(bench.folder / name / "model") for name in ("two-leaf", "one-leaf")]
    for name, weight in ends[0].state_dict().items():
        torch.testing.assert_close(ends[1].state_dict()[name], weight, rtol=0, atol=1e-5)
