"""A model that clmed trains, for some seconds, on questions of which half have one right letter and half several.

It predicts both kinds; and, broken on purpose, it tells a lost form of answering from lost knowledge.
"""

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clmed.config import EvaluationConfig
from clmed.evaluation.encoding import Request
from clmed.evaluation.evaluator import make_benchmarks
from clmed.evaluation.prompts import prompt
from clmed.evaluation.scoring import score
from clmed.results.drops import against_base, drops
from clmed.training.sharding import World
from tests.exam_files import load, table
from tests.small import make_trainer, small_config

COLOURS = {"A": "red", "B": "fox", "C": "Karo"}
SINGLE = list(COLOURS)
SEVERAL = ["".join(letters) for size in (2, 3) for letters in itertools.combinations(COLOURS, size)]


def exam(path: Path, numbers: range, answers: list[list[str]]) -> Path:
    """Which letters are right, and how many, can be read in the question; the kinds of answers take turns."""
    rows = []
    for number in numbers:
        kind = answers[number % len(answers)]
        answer = kind[number // len(answers) % len(kind)]
        stem = f"{number}: {' '.join(COLOURS[letter] for letter in answer)}?"
        rows.append([stem, "\n".join(f"{letter} {text}" for letter, text in COLOURS.items()), answer])
    return table(path, ["Question", "Options", "Answer"], *rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, make_model: Any, tokenizer: Any) -> tuple[Any, Path]:
    """The model, and the folder with its exams: `both` has both kinds, `single` one right letter."""
    folder = tmp_path_factory.mktemp("several")
    exam(folder / "train.csv", range(600), [SINGLE, SEVERAL])
    exam(folder / "both.csv", range(600, 680), [SINGLE, SEVERAL])
    exam(folder / "single.csv", range(680, 740), [SINGLE])
    exam(folder / "shown.csv", range(740, 745), [SINGLE])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLMED_CACHE", str(folder / "cache"))
        source = {"path": "train.csv", "format": "exam"}
        config = small_config(
            {},
            data_root=str(folder),
            data={"letters": source, "texts": {**source, "answer_as": "text"}},
            stream=[
                {"name": "exam", "data": ["letters", "texts"], "epochs": 8, "optimizer": {"lr": 1e-2, "warmup": 0.1}}
            ],
            evaluation={"gain": [{"benchmark": "cmexam", "path": "both.csv"}]},
            training={"sequence_length": 64, "tokens_per_step": 2048, "micro_batch_size": 32},
        )
        model = make_model()
        trainer = make_trainer(config, model, tokenizer, World(rank=0, ranks=1, mesh=None))
        trainer.train(trainer.stream)
    return model.eval(), folder


def measured(folder: Path, tokenizer: Any, model: Any, **settings: Any) -> Any:
    evaluation = EvaluationConfig.model_validate({"retention": [settings]})
    (made,) = make_benchmarks(evaluation, path_of=lambda p: folder / p, corpus=None, tokenizer=tokenizer, positions=512)
    return made.measure(model)


def test_both_kinds(trained: tuple[Any, Path], tokenizer: Any) -> None:
    model, folder = trained
    answers = measured(folder, tokenizer, model, benchmark="cmexam", path="both.csv").answers
    golds = list(zip(answers["gold"], answers["correct"], strict=True))
    for single in (True, False):
        right = [correct for gold, correct in golds if (len(gold) == 1) == single]
        assert len(right) == 40 and np.mean(right) >= 0.95
    # It is the terminator that tells "A" from the beginning of "AC", which without it is never the more probable.
    benchmark = load("cmexam", folder / "both.csv")
    asked = [prompt(benchmark, question, 0) for question in benchmark.questions]
    open_ended = [
        Request(group="", context=a.context, continuations=tuple(end.removesuffix("\n") for end in a.continuations))
        for a in asked
    ]
    values = score(model, tokenizer, open_ended, batch_tokens=4000)
    said = [each.answers[int(v.argmax())] for each, v in zip(asked, values, strict=True)]
    assert np.mean([s == gold for s, gold in zip(said, answers["gold"], strict=True) if len(gold) > 1]) <= 0.5


SETTINGS = {
    "benchmark": "multiple_choice",
    "path": "single.csv",
    "columns": {"question": "Question", "choices": ["Options"], "answer": "Answer", "answer_as": "letter"},
}


def with_bias(model: Any, tokenizer: Any, letter: str, nats: float) -> Any:
    """A copy that finds one letter more probable, whatever is asked."""
    other = copy.deepcopy(model)
    head = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=True)
    head.weight.data, head.bias.data = model.lm_head.weight.data.clone(), torch.zeros(len(tokenizer))
    head.bias.data[tokenizer(f" {letter}")["input_ids"][-1]] = nats
    other.lm_head = head
    return other


def test_format_or_knowledge(trained: tuple[Any, Path], tokenizer: Any) -> None:
    """Broken on purpose: a prior for a letter is format, all of it; noise in the layers is knowledge."""
    model, folder = trained
    damaged = copy.deepcopy(model)
    for parameter in damaged.model.layers.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    found = measured(folder, tokenizer, model, **SETTINGS).answers["log_likelihoods"]
    needed = max(
        max(values) - values[SINGLE.index("C")] for values in found
    )  # to make "C" the answer to every question
    models = {"base": model, "shifted": with_bias(model, tokenizer, "C", needed + 1), "damaged": damaged}
    rows = {
        name: measured(folder, tokenizer, each, **SETTINGS, format_check=True).scores for name, each in models.items()
    }
    base = {row["metric"]: row["score"] for row in rows["base"] if row["category"] == "all"}
    assert base["accuracy"] >= 0.95 and base["accuracy_text"] >= 0.95

    def split(name: str) -> dict[str, float]:
        found = {row["metric"]: row["score"] for row in against_base(rows["base"], rows[name])}
        now = next(row["score"] for row in rows[name] if row["metric"] == "accuracy")
        assert found["drop_format"] + found["drop_knowledge"] == pytest.approx(base["accuracy"] - now)
        return found

    form, knowledge = split("shifted"), split("damaged")
    assert form["drop_format"] > 0.5 and form["drop_knowledge"] == form["drop_text"] == 0
    assert form["drop_calibration"] == form["drop_format"] and form["letter_shift_from_base"] > 0.5
    assert knowledge["drop_knowledge"] > 0.3 and knowledge["drop_text"] > 0.3
    assert knowledge["drop_format"] < 0.5 * knowledge["drop_knowledge"]

    both = [*rows["base"], *rows["shifted"], *against_base(rows["base"], rows["shifted"])]
    points = [0] * len(rows["base"]) + [1] * (len(both) - len(rows["base"]))
    common = {"benchmark": "ward", "role": "retention", "shots": 0}
    (told,) = drops([{**common, "point": point, **row} for point, row in zip(points, both, strict=True)])
    lost = f"{100 * form['drop_format']:.1f}"
    assert told.startswith(f"ward −{lost} points; given back by calibration {lost} (format); not given back 0.0 (know")


def test_a_check_is_the_same_benchmark_asked_in_other_ways(trained: tuple[Any, Path], tokenizer: Any) -> None:
    model, folder = trained
    shots: dict[str, Any] = {"shots": 2, "shots_from": "shown.csv"}
    whole = measured(folder, tokenizer, model, **SETTINGS, **shots, format_check=True)
    found = {row["metric"]: row["score"] for row in whole.scores if row["category"] == "all"}
    ways: dict[str, dict[str, Any]] = {"": shots, "_0_shot": {}, "_text": {**shots, "scoring": "text"}}
    for ending, settings in ways.items():
        alone = measured(folder, tokenizer, model, **SETTINGS, **settings)
        expected = {row["metric"]: row["score"] for row in alone.scores if row["category"] == "all"}
        assert found[f"accuracy{ending}"] == expected["accuracy"]
        assert found.get(f"accuracy{ending}_calibrated") == expected.get("accuracy_calibrated")
        for column in ("prediction", "correct", "answers"):
            assert whole.answers[f"{column}{ending}"] == alone.answers[column]
        for here, there in zip(
            whole.answers[f"log_likelihoods{ending}"], alone.answers["log_likelihoods"], strict=True
        ):
            assert here == pytest.approx(there, abs=1e-5)
