"""The questions of tasks of lm-evaluation-harness in training text: found, given apart, refused as sources."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (extra `lm_eval`)")

import lm_eval.tasks

from benchmarks.harness import quiet
from clmed.config import BenchmarkConfig
from clmed.data.cleaning import Searched
from clmed.evaluation.contamination import asked_by_tasks, contaminated
from clmed.evaluation.harness.measure import make_task
from clmed.evaluation.harness.questions import questions
from clmed.evaluation.harness.tasks import places
from clmed.evaluation.measurement import unseen
from clmed.validation import load
from tests.command import TINY, in_process
from tests.peers.harness_tasks import TASKS, write_tasks

MANY = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    quiet()
    folder = write_tasks(tmp_path_factory.mktemp("questions") / "tasks", MANY)
    default = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default" / "mmlu_virology.yaml"
    (folder / "hub.yaml").write_text(yaml.safe_dump({"include": str(default), "task": "mmlu_virology_hub"}))
    yield folder
    logging.disable(logging.NOTSET)


def config(task: str, **settings: Any) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate({"benchmark": f"lm_eval/{task}", **settings})


def docs(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / f"{name}_{TASKS[name][2]}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def expected(name: str, doc: dict[str, Any]) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """A question as its file says it."""
    if name == "hellaswag":
        context = f"{doc['activity_label']}: {doc['ctx_a']} {doc['ctx_b'].capitalize()}"
        return context, tuple(doc["endings"]), (int(doc["label"]),)
    if name == "arc_easy":
        return doc["question"], tuple(doc["choices"]["text"]), (doc["choices"]["label"].index(doc["answerKey"]),)
    if name == "piqa":
        return doc["goal"], (doc["sol1"], doc["sol2"]), (doc["label"],)
    if name == "boolq":
        return doc["passage"], ("no", "yes"), (doc["label"],)
    if name == "mmlu_anatomy":
        listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", doc["choices"], strict=True))
        return doc["question"].strip() + listed, tuple("ABCD"), (doc["answer"],)
    if name == "gsm8k":
        return doc["question"], (doc["answer"],), (0,)
    assert name == "triviaqa"
    return doc["question"], (doc["answer"]["aliases"][0],), (0,)


@pytest.mark.parametrize("name", ["hellaswag", "arc_easy", "piqa", "boolq", "mmlu_anatomy", "gsm8k", "triviaqa"])
def test_every_question_is_read_as_it_stands_in_its_file(folder: Path, name: str) -> None:
    found = questions(config(name, questions=2), folder)
    assert {(each.benchmark, each.subject) for each in found} == {(f"lm_eval/{name}", name)}
    assert [each.index for each in found] == list(range(len(docs(folder, name))))
    assert [(each.stem, each.options, each.right) for each in found] == [
        expected(name, doc) for doc in docs(folder, name)
    ]


@pytest.mark.parametrize(
    ("name", "word"), [("wikitext", "page"), ("lambada_openai", "text"), ("winogrande", "sentence")]
)
def test_texts_that_are_read(folder: Path, name: str, word: str) -> None:
    for each, doc in zip(questions(config(name), folder), docs(folder, name), strict=True):
        assert each.stem == doc[word] or each.stem == doc[word].replace("_", doc.get("option1", "_"))


def test_a_group_has_the_questions_of_its_tasks(folder: Path) -> None:
    found = questions(config("two_subjects", name="both"), folder)
    assert [(each.benchmark, each.subject) for each in found] == (
        [("both", "mmlu_anatomy")] * (MANY + 1) + [("both", "mmlu_virology")] * MANY
    )


@pytest.fixture
def experiment(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three questions of hellaswag with their right endings, and one of gsm8k, stand in text that is trained on."""
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    held = [
        " ".join([doc["ctx_a"], doc["ctx_b"], doc["endings"][int(doc["label"])]]) for doc in docs(folder, "hellaswag")
    ]
    long = [n for n, text in enumerate(held) if len(text.split()) > 20][:3]
    asked = [doc["question"] for doc in docs(folder, "gsm8k")]
    lines = [held[n] for n in long] + [max(asked, key=len) + " It is so."]
    with (tmp_path / "text.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in (*lines, *(f"Number {n}." for n in range(40))))
    retention = [{"benchmark": f"lm_eval/{name}", "path": str(folder)} for name in ("hellaswag", "gsm8k", "piqa")]
    source = {"path": str(tmp_path / "text.jsonl"), "format": "text", "heldout": 0, "fisher": 0}
    made = {**TINY, "data": {**TINY["data"], "medical": source}, "evaluation": {"retention": retention}}
    (tmp_path / "leaky.yaml").write_text(yaml.safe_dump(made, allow_unicode=True), encoding="utf-8")
    return tmp_path / "leaky.yaml"


def test_planted_questions_are_found(experiment: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read = load(experiment)
    found = contaminated(read, Searched(asked_by_tasks(read)))
    asked = [doc["question"] for doc in docs(folder, "gsm8k")]
    assert set(found) == {"lm_eval/hellaswag", "lm_eval/gsm8k"}
    assert found["lm_eval/gsm8k"] == {("gsm8k", asked.index(max(asked, key=len)))}
    assert 1 <= len(found["lm_eval/hellaswag"]) <= 3
    told = in_process(capfd, "data", "inspect", str(experiment))
    assert told.code == 0 and "1 of 8 questions of lm_eval/gsm8k stand in text that is trained on" in told.out, told.err


def test_they_are_scored_apart(folder: Path, make_model: Any, tokenizer: Any) -> None:
    model = make_model(initializer_range=0.3)
    settings = (folder, tokenizer, 512, 1000, None, print, unseen)
    held = {("hellaswag", 1), ("hellaswag", 4)}
    found = make_task(config("hellaswag"), "gain", *settings, held).measure(model)
    plain = make_task(config("hellaswag"), "gain", *settings).measure(model)
    assert found.scores[: len(plain.scores)] == plain.scores
    right = np.array(plain.answers["score"])
    marked = np.isin(np.arange(MANY), [1, 4])
    assert [
        (row["category"], row["metric"], row["score"], row["questions"]) for row in found.scores[len(plain.scores) :]
    ] == [
        ("clean", "acc", right[~marked].mean(), MANY - 2),
        ("contaminated", "acc", right[marked].mean(), 2),
    ]
    assert found.answers["categories"] == [["contaminated"] if mark else ["clean"] for mark in marked]
    pages = make_task(config("wikitext"), "gain", *settings, {("wikitext", 0)}).measure(model)
    assert all(row["category"] == "all" for row in pages.scores)  # its score is no mean over questions
    assert pages.answers["categories"][:2] == [["contaminated"], ["clean"]]


def test_prompts_are_written_once(
    folder: Path, make_model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.api.task import ConfigurableTask

    written = []
    original = ConfigurableTask.fewshot_context

    def fewshot_context(self: Any, *args: Any, **kwargs: Any) -> Any:
        written.append(self.task_name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ConfigurableTask, "fewshot_context", fewshot_context)
    made = make_task(config("piqa", shots=2), "gain", folder, tokenizer, 512, 1000, None, print, unseen)
    first, second = made.measure(make_model()), made.measure(make_model(seed=1))
    assert len(written) == MANY
    assert first.answers["prompt_hash"] == second.answers["prompt_hash"]
    assert first.answers["log_likelihoods"] != second.answers["log_likelihoods"]
    assert all(len(values) == 2 for values in second.answers["log_likelihoods"])


def test_where_the_questions_are(folder: Path) -> None:
    (own,) = places(config("piqa"), folder)
    assert own.files == (folder / "piqa_validation.jsonl",)
    (challenge,) = places(config("arc_challenge"), folder)
    assert challenge == ("allenai/ai2_arc", "ARC-Challenge", "test", ())
    humanities = places(config("mmlu_humanities"), folder)  # a group of a tag
    assert len(humanities) == 13 and {(place.hub, place.split) for place in humanities} == {("cais/mmlu", "test")}
    assert "philosophy" in {place.subset for place in humanities}
    assert len(places(config("two_subjects"), folder)) == 2


@pytest.mark.parametrize(
    ("source", "leaks"),
    [
        ("{path: FOLDER/piqa_validation.jsonl, format: text}", "piqa"),
        ("{path: FOLDER/piqa_train.jsonl, format: text}", None),
        ("{path: Cais/mmlu, subset: anatomy, split: test, format: text}", None),
        ("{path: cais/mmlu, subset: virology, split: auxiliary_train+test, format: text}", "mmlu_virology_hub"),
        ("{path: cais/mmlu, split: test, format: text}", "mmlu_virology_hub"),
        ("{path: cais/mmlu, subset: virology, split: dev, format: text}", None),
    ],
)
def test_their_files_are_no_sources(
    experiment: Path, folder: Path, capfd: pytest.CaptureFixture[str], source: str, leaks: str | None
) -> None:
    tasks = [{"benchmark": f"lm_eval/{name}", "path": str(folder)} for name in ("piqa", "mmlu_virology_hub")]
    overrides = [f"data.medical={source.replace('FOLDER', str(folder))}", f"evaluation.retention={json.dumps(tasks)}"]
    done = in_process(capfd, "validate", str(experiment), *overrides)
    if leaks is None:
        assert "leaks" not in done.err and done.code == 0, done.err
    else:
        done.is_mistake(f"data.medical leaks questions of the benchmark 'lm_eval/{leaks}'")
