"""experiments/real-data.yaml on the real files, its scores computed again by hand; and hub ids, by the same code."""

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from datasets.naming import camelcase_to_snakecase
from transformers import AutoModelForCausalLM, AutoTokenizer

from clmed import experiment
from clmed.config import BenchmarkConfig, ExperimentConfig, SourceConfig, load, resolve
from clmed.data.corpus import Corpus
from clmed.data.sources import records
from clmed.errors import UserError
from clmed.evaluation.benchmarks import load_benchmark
from clmed.evaluation.benchmarks.cmmlu import NAMES as CMMLU_NAMES
from clmed.evaluation.evaluator import make_benchmarks
from clmed.results.rundir import RunDirectory
from tests.command import in_process, write_tiny

FILE = Path(__file__).parent.parent / "experiments" / "real-data.yaml"
POINTS = 3  # the base and the ends of two experiences
QUESTIONS = {"mmlu": 14_042, "cmmlu": 11_582, "cmexam": 1_000}
SAMPLE = 40
SMALL = [
    "model.build.pretrain=null",
    "evaluation.batch_tokens=4k",
    "stream.medical-pretraining.tokens=24k",
    "stream.exam-finetuning.tokens=24k",
    *(f"evaluation.{place}.questions={SAMPLE}" for place in ("gain.0", "retention.0", "retention.1")),
]


@pytest.fixture(scope="module")
def small(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ExperimentConfig, RunDirectory]]:
    """A run of seconds: an untrained base, few tokens, a sample of the questions."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLMED_CACHE", str(folder / "cache"))
        config = load(FILE, [f"data_root={real_data}", *SMALL])
        yield config, experiment.run(config, folder / "run")


def test_a_sample(small: tuple[ExperimentConfig, RunDirectory], real_data: Path) -> None:
    check(small[1], real_data, dict.fromkeys(QUESTIONS, SAMPLE))


def test_every_question_is_read_as_it_stands_in_its_file(real_data: Path) -> None:
    for kind, count in QUESTIONS.items():
        path = real_data / kind / ("test.csv" if kind == "cmexam" else "")
        benchmark = load_benchmark(BenchmarkConfig(benchmark=kind, path=str(path)), path)
        found = {(q.subject, q.index): Item(q.stem, dict(q.options), q.answer) for q in benchmark.questions}
        assert len(found) == count and found == files(real_data, kind)


@pytest.mark.full
def test_every_question(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLMED_CACHE", str(tmp_path / "cache"))
    run = experiment.run(load(FILE, [f"data_root={real_data}"]), tmp_path / "run")
    check(run, real_data, QUESTIONS)
    for kind in QUESTIONS:  # each once, in the files' order
        frame = answers(run, 0, kind)
        assert list(zip(frame.subject, frame["index"], strict=True)) == sorted(files(real_data, kind))
        chance = {"mmlu": (0.21, 0.29), "cmmlu": (0.22, 0.28), "cmexam": (0, 0.25)}[kind]
        for point in range(POINTS):
            assert chance[0] < answers(run, point, kind).correct.mean() < chance[1]


def check(run: RunDirectory, data: Path, questions: Mapping[str, int]) -> None:
    """Answers, scores and prompts of a run, from the files alone."""
    results = pandas.DataFrame(run.results())
    assert sorted(results.point.unique()) == list(range(POINTS))
    assert "lost shots" not in run.log.read_text(encoding="utf-8")
    last = POINTS - 1
    model = AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    for kind, count in questions.items():
        rows = files(data, kind)
        for point in range(POINTS):
            frame = answers(run, point, kind)
            assert len(frame) == count and not frame.duplicated(["subject", "index"]).any()
            assert (frame.shots == (0 if kind == "cmexam" else 5)).all()
            gold = [rows[key].answer for key in zip(frame.subject, frame["index"], strict=True)]
            best = [a[int(np.argmax(ll))] for a, ll in zip(frame.answers, frame.log_likelihoods, strict=True)]
            assert list(frame.gold) == gold and list(frame.prediction) == best
            assert list(frame.correct) == [g == b for g, b in zip(gold, best, strict=True)]
            found = results[(results.point == point) & (results.benchmark == kind)]
            expected = by_hand(kind, frame)
            metrics = {metric for _, metric in expected}  # those of calibration have tests of their own
            scores = {(row.category, row.metric): row.score for row in found.itertuples() if row.metric in metrics}
            assert scores == pytest.approx(expected, abs=1e-12)
        for _, answer in answers(run, last, kind).iloc[:: math.ceil(count / 3)].iterrows():
            asked = ask(data, kind, answer.subject, answer["index"])
            letters = sets_of_letters(kind, rows[answer.subject, answer["index"]].options)
            assert list(answer.answers) == list(letters)
            likelihoods = [likelihood(model, tokenizer, asked, text) for text in letters.values()]
            assert answer.log_likelihoods == pytest.approx(likelihoods, abs=1e-3)
    perplexities = results[results.metric == "nats_per_token"]
    assert set(perplexities.benchmark) == {f"{name}_perplexity" for name in ("web", "instructions_zh")}
    assert (perplexities.groupby("benchmark").questions.nunique() == 1).all() and perplexities.questions.min() > 1000
    assert perplexities.score.between(3, math.log(len(tokenizer)) + 0.1).all()


def answers(run: RunDirectory, point: int, kind: str) -> pandas.DataFrame:
    return pandas.read_parquet(run.path / "answers" / str(point) / f"{kind}.parquet")


# The benchmarks a second time, by other means than clmed's.


@dataclass(frozen=True)
class Item:
    """A question as it stands in its file."""

    stem: str
    options: dict[str, str]
    answer: str


@cache
def files(data: Path, kind: str, part: str = "test") -> dict[tuple[str, int], Item]:
    """(subject, row) -> question."""
    if kind == "cmexam":
        table = pandas.read_csv(data / "cmexam" / f"{part}.csv", dtype=str, keep_default_na=False)
        rows = zip(table.Question, table.Options, table.Answer, strict=True)
        split = [(stem, dict(line.split(" ", 1) for line in cell.split("\n")), answer) for stem, cell, answer in rows]
        return {
            (kind, i): Item(stem, options, "".join(sorted(answer))) for i, (stem, options, answer) in enumerate(split)
        }
    found = {}
    for file in sorted((data / kind / part).glob("*.csv")):
        with file.open(encoding="utf-8-sig", newline="") as lines:
            table = list(csv.reader(lines))
        cells = table if kind == "mmlu" else [row[1:] for row in table[1:]]
        subject = file.stem.removesuffix(f"_{part}") if kind == "mmlu" else file.stem
        for i, (stem, *options, answer) in enumerate(cells):
            found[subject, i] = Item(stem, dict(zip("ABCD", options, strict=True)), answer)
    return found


def ask(data: Path, kind: str, subject: str, index: int) -> str:
    """The prompt up to where the answer begins: zero-shot for CMExam, else with the five shots of dev."""
    item = files(data, kind)[subject, index]
    if kind == "cmexam":
        return f"题目：{item.stem}\n{lines(item)}答案："
    if kind == "mmlu":
        head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        start, cue, space = "", "Answer:", " "
    else:
        head = f"以下是关于{CMMLU_NAMES[subject]}的单项选择题，请直接给出正确答案的选项。\n\n"
        start, cue, space = "题目：", "答案是：", ""
    shown = [files(data, kind, "dev")[subject, i] for i in range(5)]
    examples = [f"{start}{shot.stem}\n{lines(shot)}{cue}{space}{shot.answer}\n\n" for shot in shown]
    return f"{head}{''.join(examples)}{start}{item.stem}\n{lines(item)}{cue}"


def lines(item: Item) -> str:
    return "".join(f"{letter}. {text}\n" for letter, text in item.options.items())


def sets_of_letters(kind: str, options: Mapping[str, str]) -> dict[str, str]:
    """Answer -> how it continues the prompt."""
    if kind != "cmexam":
        return {letter: f" {letter}" if kind == "mmlu" else letter for letter in options}
    sets = ["".join(chosen) for size in range(1, len(options) + 1) for chosen in combinations(options, size)]
    return {letters: f"{letters}\n" for letters in sets}


def likelihood(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """The log-probability of the continuation in one forward pass over the whole text."""
    ids = tokenizer(context + continuation, return_tensors="pt")["input_ids"]
    start = len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        logs = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
    return float(logs.gather(1, ids[0, start:, None]).sum())


def by_hand(kind: str, frame: pandas.DataFrame) -> dict[tuple[str, str], float]:
    """All scores of a benchmark from its answers."""

    def accuracy(part: pandas.DataFrame) -> float:
        return float(part.groupby("subject").correct.mean().mean() if kind == "cmmlu" else part.correct.mean())

    each = frame.explode("categories")
    scores = {(name, "accuracy"): accuracy(part) for name, part in each.groupby("categories")}
    scores["all", "accuracy"] = accuracy(frame)
    if kind == "cmexam":
        assert set(each.categories) <= {"single", "multiple", "clean", "contaminated"}
        golds = frame.gold.value_counts()
        scores["all", "f1"] = scores["all", "f1_macro"] = 0.0
        for letters, support in golds.items():
            hits = ((frame.gold == letters) & frame.correct).sum()
            f1 = 2 * hits / (support + (frame.prediction == letters).sum())
            scores["all", "f1"] += f1 * support / len(frame)
            scores["all", "f1_macro"] += f1 / len(golds)
        shared = sum(len(set(gold) & set(said)) for gold, said in zip(frame.gold, frame.prediction, strict=True))
        scores["all", "f1_letters"] = 2 * shared / (frame.gold.str.len().sum() + frame.prediction.str.len().sum())
    else:
        subjects = frame.groupby("subject").correct.mean()
        scores |= {(f"subject:{name}", "accuracy"): float(score) for name, score in subjects.items()}
    return scores


def test_prompts_that_are_too_long_lose_shots_and_are_told(
    small: tuple[ExperimentConfig, RunDirectory], real_data: Path
) -> None:
    config, run = small
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    model = AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.float32)
    told: list[str] = []
    mmlu = make_benchmarks(
        config.evaluation.model_copy(update={"gain": [], "retention": config.evaluation.retention[:1]}),
        path_of=lambda path: resolve(config, path),
        corpus=Corpus.of(config, tokenizer, 64),
        tokenizer=tokenizer,
        positions=1_000,
        say=told.append,
    )[0]
    short = pandas.DataFrame(mmlu.measure(model).answers)
    whole = answers(run, POINTS - 1, "mmlu")
    lost = short[short.shots < 5]
    counts = [f"{subject} {count}" for subject, count in lost.subject.value_counts().items()]
    start, _, listed = told[0].rstrip(")").partition(" (")
    assert start == f"mmlu: {len(lost)} of {SAMPLE} prompts lost shots from the front, to fit 1,000 positions"
    assert sorted(listed.split(", ")) == sorted(counts) and 3 < len(lost) < SAMPLE
    for i in short[short.shots == 5].index:
        assert short.log_likelihoods[i] == pytest.approx(whole.log_likelihoods[i], abs=1e-3)
    for _, answer in lost.iterrows():
        asked = ask(real_data, "mmlu", answer.subject, answer["index"])
        tail = asked.split("\n\n")  # only where no question holds a blank line can it be cut so
        if len(tail) == 7:
            asked = "\n\n".join([tail[0], *tail[6 - answer.shots :]])
            assert len(tokenizer(asked + " A")["input_ids"]) <= 1_000
            expected = [likelihood(model, tokenizer, asked, f" {letter}") for letter in "ABCD"]
            assert answer.log_likelihoods == pytest.approx(expected, abs=1e-3)


# Hub ids


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and empty caches: their folder, with datasets/ and hub/."""
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path


def downloaded(cache: Path, hub_id: str, **splits: Sequence[dict[str, Any]]) -> None:
    """Put a data set in the cache, as an earlier run with a network would have."""
    import datasets

    owner, name = hub_id.split("/")
    for split, rows in splits.items():
        datasets.Dataset.from_list(list(rows)).to_parquet(cache / name / f"{split}.parquet")
    datasets.load_dataset(str(cache / name), cache_dir=str(cache / "datasets"))
    (cache / "datasets" / camelcase_to_snakecase(name)).rename(
        cache / "datasets" / f"{owner}___{camelcase_to_snakecase(name)}"
    )


def test_hub_ids_of_everything(
    offline: Path,
    tokenizer: Any,
    make_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A run whose model, text, exam (to train on and to sit) come from the hub, downloaded before."""
    revision = "0" * 40
    snapshot = offline / "hub" / "models--somebody--llama" / "snapshots" / revision
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    (snapshot.parent.parent / "refs" / "main").write_text(revision)
    make_model().save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    options = [{"key": "Ａ", "value": "甲"}, {"key": "B", "value": "乙"}]
    exam = [{"Question": f"问{n}", "Options": options, "Answer": "B", "Explanation": None} for n in range(90)]
    downloaded(offline, "somebody/texts", train=[{"text": f"Number {n} is a number."} for n in range(300)])
    downloaded(offline, "fzkuji/CMExam", train=exam, test=exam[:7])
    monkeypatch.chdir(offline)
    write_tiny(offline)
    done = in_process(
        capfd,
        *("run", "tiny.yaml", "-o", "run"),
        "model={path: somebody/llama}",
        "data.medical.path=somebody/texts",
        "data.exam={path: fzkuji/CMExam, format: exam, target: answer_then_explanation}",
        "evaluation.gain.0={benchmark: cmexam}",
    )
    assert done.code == 0, done.err
    frame = answers(RunDirectory(offline / "run"), 0, "cmexam")
    assert list(frame.gold) == ["B"] * 7 and list(frame.answers[0]) == ["A", "B", "AB"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model={path: somebody/llama}", ["The model somebody/llama could not be loaded", "couldn't connect"]),
        (
            "data.medical.path=somebody/pairs",
            ["somebody/pairs (split train) cannot be loaded from the hub", "name the local file"],
        ),
        ("evaluation.retention.0.path=somebody/mmlu", ["somebody/mmlu (subset all, split test) cannot be loaded"]),
        ("evaluation.gain.0={benchmark: cmexam}", ["fzkuji/CMExam (split test) cannot be loaded"]),
    ],
)
def test_a_hub_out_of_reach(
    override: str,
    words: list[str],
    offline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    in_process(capfd, "run", "tiny.yaml", "-o", "run", override).is_mistake(*words)


def test_a_data_set_that_is_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found cmmlu.py")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"scripts are no longer supported.* can be downloaded by other means"):
        list(records(SourceConfig(path="somebody/cmmlu", format="text"), None))
