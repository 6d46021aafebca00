"""Tasks of lm-evaluation-harness on clmed's live model against the harness's own hf backend.

The same task files, questions, shots and model: every metric is the same, log-likelihoods are within 1e-4, generated
texts equal to the letter.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (extra `lm_eval`)")

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from benchmarks.harness import quiet
from clmed.config import BenchmarkConfig
from clmed.errors import UserError
from clmed.evaluation.harness.measure import answered, make_task, record, score_rows
from clmed.evaluation.harness.model import LiveModel, greedy
from clmed.evaluation.harness.suite import read_suite
from clmed.evaluation.measurement import Measurement, unseen
from clmed.evaluation.scoring import Request, score
from clmed.results.rundir import RunDirectory
from clmed.training.sharding import World
from tests.command import TINY, in_process
from tests.evaluation.test_scoring import shard
from tests.peers.harness_tasks import TASKS, write_tasks
from tests.small import on_ranks

POSITIONS = 512
METRICS = ("acc", "exact_match,remove_whitespace", "word_perplexity")
SHOTS = {"hellaswag": 2, "arc_easy": 0, "boolq": 1, "mmlu_anatomy": 5, "triviaqa": 3, "nq_open": 5, "lambada_openai": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    quiet()
    yield write_tasks(tmp_path_factory.mktemp("lm_eval") / "tasks")
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def model(make_model: Any) -> Any:
    """Wide enough that the most probable token is now and then the right one."""
    return make_model(initializer_range=0.3, max_position_embeddings=POSITIONS)


def config(name: str, **settings: Any) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate({"benchmark": f"lm_eval/{name}", **settings})


def theirs(model: Any, tokenizer: Any, folder: Path, name: str, shots: int | None) -> dict[str, Any]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=POSITIONS)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(model=lm, tasks=[name], num_fewshot=shots, task_manager=manager, bootstrap_iters=0)
    return dict(found)


def measured(model: Any, tokenizer: Any, folder: Path, settings: BenchmarkConfig, **more: Any) -> Measurement:
    given: dict[str, Any] = {"floor": None, "say": print, "follow": unseen, **more}
    made = make_task(settings, "retention", folder, tokenizer, POSITIONS, 1000, *given.values())
    result = made.measure(model)
    assert isinstance(result, Measurement)
    return result


@pytest.mark.parametrize("name", [*TASKS, "two_subjects"])
def test_every_number_is_that_of_the_hf_backend(model: Any, tokenizer: Any, folder: Path, name: str) -> None:
    settings = config(name, **({"shots": SHOTS[name]} if name in SHOTS else {}))
    expected = theirs(model, tokenizer, folder, name, settings.given_shots)
    suite = read_suite(settings, folder, POSITIONS, print)
    live = LiveModel(model, tokenizer, batch_tokens=1000, label=name, follow=unseen)
    found = answered(suite, live)

    for task, samples in expected["samples"].items():
        for one, other in zip(found["samples"][task], samples, strict=True):
            assert one["doc_id"] == other["doc_id"] and one["filter"] == other["filter"]
            assert one["arguments"] == other["arguments"]
            same(one["resps"], other["resps"])
    rows = {(row["category"], row["metric"]): row["score"] for row in score_rows(settings, suite, found)}
    compared = 0
    for part, values in expected["results"].items():
        category = "all" if part == name else part if part in expected["group_subtasks"] else f"subject:{part}"
        for key, value in values.items():
            metric, _, kept = key.partition(",")
            if kept and not metric.endswith("_stderr"):
                assert rows[category, metric if kept == "none" else key] == pytest.approx(value, rel=1e-4), key
                compared += 1
    assert compared == len(rows)

    first = score_rows(settings, suite, found)[0]
    answers = record(settings, suite, found["samples"], first)
    assert {len(column) for column in answers.values()} == {first["questions"]}
    if first["metric"].startswith(("acc", "exact_match")):
        assert np.mean(answers["score"]) == pytest.approx(first["score"], abs=1e-6)
        assert name == "truthfulqa_mc2" or np.mean(answers["correct"]) == pytest.approx(first["score"])
    if any(answers["generated"]):
        assert len(set(answers["generated"])) > 2


def same(one: Any, other: Any) -> None:
    """Answers of a model: (log-likelihood, most probable), log-likelihood, or text; in lists."""
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, tuple):
        assert one[1] == other[1]
        assert one[0] == pytest.approx(other[0], abs=1e-4)
    elif isinstance(one, str):
        assert one == other
    else:
        assert one == pytest.approx(other, rel=1e-6, abs=1e-4)


def test_empty_and_long_contexts(model: Any, tokenizer: Any) -> None:
    """A text without context follows the token that begins texts; one of more tokens than positions loses its start."""
    from lm_eval.api.instance import Instance

    pairs = [
        ("", " Karo lies"), ("", "</s> Karo"), ("The quick brown ", "fox"), ("桂枝 " * 400, "汤"),
        ("Karo", " lies" * 200),
    ]  # fmt: skip
    asked = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in pairs]
    live = LiveModel(model, tokenizer, batch_tokens=500, label="", follow=unseen)
    usual = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=POSITIONS)
    for value, expected in zip(live.loglikelihood(asked), usual.loglikelihood(asked), strict=True):
        same(value, expected)
    assert live.cut == 1
    # With white space alone before it the hf backend can do nothing.
    (value,) = live.loglikelihood([Instance("loglikelihood", {}, ("  \n", "Karo"), 0, ("t", 0, 1))])
    same(value, usual.loglikelihood([Instance("loglikelihood", {}, ("", "  \nKaro"), 0, ("t", 0, 1))])[0])
    # A token that spans the border: the hf backend would score "Ka lies".
    ask, ends = "Question: What is the capital of Norland?\nAnswer: Ka", ("ro lies", "X lies")
    found = live.loglikelihood([Instance("loglikelihood", {}, (ask, end), 0, ("t", 0, 1)) for end in ends])
    (values,) = score(model, tokenizer, [Request(group="", context=ask, continuations=ends)], batch_tokens=100)
    assert [total for total, _ in found] == pytest.approx(values.tolist(), abs=1e-6)
    whole, context = tokenizer(ask + ends[0])["input_ids"], tokenizer(ask)["input_ids"]
    assert whole[: len(context)] != context


def test_a_sample_is_the_same_each_time_and_smaller_ones_are_in_it(model: Any, tokenizer: Any, folder: Path) -> None:
    rows = {}
    for questions in (3, 5, None):
        settings = config("two_subjects", questions=questions, shots=1)
        answers = measured(model, tokenizer, folder, settings).answers
        rows[questions] = set(zip(answers["subject"], answers["index"], strict=True))
    assert [len(found) for found in rows.values()] == [3, 5, 17]
    assert rows[3] < rows[5] < rows[None]
    again = read_suite(config("two_subjects", questions=3, shots=1), folder, POSITIONS, print).questions()
    assert {(name, row) for name, row, _ in again} == rows[3]


def test_nothing_is_left_changed_and_a_second_measurement_is_the_same(model: Any, tokenizer: Any, folder: Path) -> None:
    import random

    made = make_task(
        config("triviaqa", shots=2, questions=3), "gain", folder, tokenizer, POSITIONS, 1000, None, print, unseen
    )
    shown = make_task(config("hellaswag", shots=2), "gain", folder, tokenizer, POSITIONS, 1000, None, print, unseen)
    model.train()
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = [each.measure(model) for each in (made, shown)]
    assert model.training and not any(parameter.grad is not None for parameter in model.parameters())
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    model.eval()
    for one, each in zip(first, (made, shown), strict=True):
        other = each.measure(model)
        assert (one.scores, one.answers) == (other.scores, other.answers)
    settings = config("triviaqa", shots=2, questions=3)
    again = make_task(settings, "gain", folder, tokenizer, POSITIONS, 500, None, print, unseen)
    assert again.digest == made.digest != shown.digest


def test_two_sharded_ranks_equal_one(model: Any, tokenizer: Any, folder: Path, tmp_path: Path) -> None:
    asked = [config("two_subjects"), config("triviaqa", questions=3), config("wikitext")]
    made = [make_task(settings, "gain", folder, tokenizer, POSITIONS, 400, None, print, unseen) for settings in asked]
    alone = [each.measure(model) for each in made]

    def work(world: World) -> list[Any]:
        sharded = shard(model)
        found = [each.measure(sharded) for each in made]
        gathered: list[Any] = [None] * world.ranks
        torch.distributed.all_gather_object(gathered, [(each.scores, each.answers) for each in found])
        return gathered

    for of_rank in on_ranks(2, work, tmp_path):
        for (scores, answers), expected in zip(of_rank, alone, strict=True):
            for row, other in zip(scores, expected.scores, strict=True):
                assert {**row, "score": 0} == {**other, "score": 0}
                assert row["score"] == pytest.approx(other["score"], rel=1e-4)
            assert answers["generated"] == expected.answers["generated"]
            assert answers["prediction"] == expected.answers["prediction"]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("truthfulqa_mc1", {"shots": 2}, "always asked without shots"),
        ("sampled", {}, "random answers"),
        ("beams", {}, "asks for num_beams"),
        ("long", {}, "generates up to 600 tokens, but the model takes 512"),
        ("gone", {}, "cannot be read"),
        ("unsafe", {}, "runs code that a model wrote"),
    ],
)
def test_what_cannot_be_asked(folder: Path, name: str, settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_suite(config(name, **settings), folder, POSITIONS, print)


def test_floors_fit_the_metric(model: Any, tokenizer: Any, folder: Path) -> None:
    with pytest.raises(UserError, match="word_perplexity and needs per cent"):
        measured(model, tokenizer, folder, config("wikitext"), floor=-2.0)
    with pytest.raises(UserError, match="acc and needs points"):
        measured(model, tokenizer, folder, config("piqa"), floor=5.0)


def test_greedy() -> None:
    assert greedy("t", {"until": "\n", "max_new_tokens": 5, "temperature": 0.0}, 100) == (5, ("\n",))
    assert greedy("t", {"until": ["a", "b"], "do_sample": False, "temperature": 0.7}, 500) == (256, ("a", "b"))


@pytest.fixture
def command(folder: Path, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Any:
    if not (folder.parent / "pico").exists():
        model.save_pretrained(folder.parent / "pico")
        tokenizer.save_pretrained(folder.parent / "pico")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("CLMED_CACHE", str(folder.parent / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: in_process(capfd, *arguments)


def test_evaluate(command: Any, folder: Path) -> None:
    named = ("evaluate", "pico", "--path", "tasks", "--benchmark", "lm_eval/hellaswag", "--shots", "2")
    done = command(*named, "--benchmark", "lm_eval/wikitext", "--path", "tasks", "-o", "out")
    assert done.code == 0 and "overrides" not in done.err, done.err
    rows = RunDirectory.open(folder.parent / "out").results()
    assert [(row["benchmark"], row["metric"], row["shots"]) for row in rows] == [
        ("lm_eval/hellaswag", "acc", 2), ("lm_eval/hellaswag", "acc_norm", 2),
        ("lm_eval/wikitext", "word_perplexity", 0), ("lm_eval/wikitext", "byte_perplexity", 0),
        ("lm_eval/wikitext", "bits_per_byte", 0),
    ]  # fmt: skip
    answers = RunDirectory.open(folder.parent / "out").answers(0, "lm_eval/hellaswag")
    assert np.mean(answers["correct"]) == rows[0]["score"] and len(answers["log_likelihoods"][0]) == 4

    shown = command(*named, "--show", "3")
    assert "question 3 of 8: task hellaswag, row 3; 2 shots" in shown.out
    prompt = shown.out.partition("----- prompt -----\n")[2]
    assert prompt.count("\n\n") == 2 and len(prompt.partition("continue it -----\n")[2].splitlines()) == 4
    command(*named, "--show", "8").is_mistake("has 8 questions; --show counts them from 0")
    command(*named[:5], "lm_eval/hellaswga").is_mistake("did you mean 'hellaswag'?")
    command(*named[:5], "lm_eval/ai2_arc").is_mistake("a tag of several tasks", "name arc_easy")
    command(*named[:5], "lm_eval/piqa", "--path", "pico.txt").is_mistake(
        "a folder with task files of lm_eval is needed"
    )


def test_a_run(command: Any, folder: Path) -> None:
    """Measured at every point, its own shots recorded; the dumped configuration loads again equal."""
    retention = [
        {"benchmark": "lm_eval/two_subjects", "path": str(folder), "name": "subjects"},
        {"benchmark": "lm_eval/nq_open", "path": str(folder), "shots": 2, "questions": 4},
        {"benchmark": "lm_eval/wikitext", "path": str(folder)},
    ]
    floors = {"lm_eval/wikitext": 500.0, "subjects": -90.0}
    experiment = {**TINY, "evaluation": {"retention": retention, "gain": [], "floors": floors}, "name": "harness"}
    file = folder.parent / "run.yaml"
    file.write_text(yaml.safe_dump(experiment, allow_unicode=True), encoding="utf-8")
    mistyped = command("validate", "run.yaml", "evaluation.retention.1.benchmark=lm_eval/nq_opn")
    mistyped.is_mistake("retention[1].benchmark", "lm_eval has no task 'nq_opn'", "did you mean 'nq_open'?")
    done = command("run", "run.yaml")
    assert done.code == 0, done.err
    run = RunDirectory.open(folder.parent / "runs" / "harness")
    rows = run.results()
    points = {row["point"] for row in rows}
    assert len(points) == 4
    whole = [row for row in rows if row["category"] == "all" and row["metric"] in METRICS]
    assert len(whole) == 3 * len(points)
    assert {row["category"] for row in rows if row["benchmark"] == "subjects"} == {
        "all", "two_subjects::inner", "subject:mmlu_anatomy", "subject:mmlu_virology"
    }  # fmt: skip
    perplexity = [row["score"] for row in whole if row["metric"] == "word_perplexity"]
    assert len(set(perplexity)) == len(points)
    assert {row["shots"] for row in rows if row["benchmark"] == "lm_eval/nq_open"} == {2}
    assert len(run.answers(0, "subjects")["correct"]) == 17
    assert "shots" not in run.config()["evaluation"]["retention"][0]
    assert run.config()["evaluation"]["retention"][1]["shots"] == 2
    plotted = command("plot", str(run.path))
    assert plotted.code == 0, plotted.err
