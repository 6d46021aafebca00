"""`clmed evaluate` as its users run it: any model, several benchmarks, the table, the files of a run, one prompt."""

import json
import math
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import yaml

from clmed.benchmark_options import group, named_model
from clmed.errors import UserError
from clmed.evaluation.prompts import prompt
from clmed.evaluation.record import excerpt, prompt_hash
from clmed.results.rundir import RunDirectory
from tests.command import Done, in_process
from tests.exam_files import jsonl, load, table

EXAM = [
    ["Question", "Options", "Answer", "Explanation"],
    ["治疗感冒的药是", "A 甲药\nB 乙药\nC 丙药", "B", ""],
    ["桂枝汤的组成是", "A 桂枝\nB 芍药\nC 石膏", "AB", ""],
    ["属于寒证的是", "A 恶寒\nB 口渴\nC 肢冷", "nan", ""],
]
TEXTS = ["The capital of Norland is Karo.", "Karo lies on the river Vell and has a harbour. " * 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_model: Any, tokenizer: Any) -> Path:
    """A model, two exams and a text."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_model(max_position_embeddings=256).save_pretrained(folder / "pico")
    tokenizer.save_pretrained(folder / "pico")
    table(folder / "exam.csv", *EXAM)
    for part, count in (("dev", 3), ("test", 4)):
        rows = [[f"Which is {n}?", "one", "two", "three ", "None", "ABCD"[n]] for n in range(count)]
        table(folder / "mmlu" / part / f"anatomy_{part}.csv", *rows)
    jsonl(folder / "texts.jsonl", *({"text": text} for text in TEXTS))
    return folder


@pytest.fixture
def evaluate(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """The command, in the folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CLMED_CACHE", str(folder / "cache"))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Done:
        return in_process(capfd, "evaluate", *arguments)

    return run


def test_a_question_is_called_by_its_beginning_and_its_end() -> None:
    assert excerpt("  Which of\n these? ") == "Which of these?"
    assert excerpt("患" * 160) == "患" * 160
    long = excerpt(f"A case. {'x ' * 500} What now?")
    assert len(long) <= 160 and long.startswith("A case. x x") and " … " in long and long.endswith("What now?")


def test_a_model_on_three_benchmarks(evaluate: Any, folder: Path, make_model: Any, tokenizer: Any) -> None:
    done = evaluate(
        "pico", *("--benchmark", "mmlu", "--path", "mmlu", "--shots", "2"),
        *("--benchmark", "cmexam", "--path", "exam.csv"), *("--perplexity", "texts.jsonl", "-o", "out"),
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["benchmark", "category", "metric", "score", "one", "letter", "majority", "questions"] in lines
    assert next(line for line in lines if line[:3] == ["cmexam", "all", "accuracy"])[-3:] == ["50.0", "50.0", "2"]
    assert "rows without a known answer, not asked: 1" in done.out
    assert "cmexam leaves out exam.csv, line 8: no known answer" in done.out

    run = RunDirectory.open(folder / "out")
    assert run.status()["state"] == "complete" and run.config()["model"]["path"] == "pico"
    results = pandas.DataFrame(run.results())
    assert set(results.point) == {0} and set(results.benchmark) == {"mmlu", "cmexam", "texts_perplexity"}
    whole = results[(results.category == "all")].set_index(["benchmark", "metric"])
    assert whole.loc[("cmexam", "accuracy"), "skipped"] == 1
    assert whole.loc[("mmlu", "accuracy"), "constant"] == 0.25
    assert {"f1", "f1_macro", "f1_letters"} < set(results[results.benchmark == "cmexam"].metric)

    model = make_model(max_position_embeddings=256)
    answers = pandas.DataFrame(run.answers(0, "mmlu"))
    mmlu = load("mmlu", folder / "mmlu", shots=2)
    for row, question in zip(answers.itertuples(), mmlu.questions, strict=True):
        asked = prompt(mmlu, question, 2)
        assert (row.benchmark, row.subject, row.shots, row.gold) == ("mmlu", "anatomy", 2, question.answer)
        assert row.tokens == len(tokenizer(asked.context + " A")["input_ids"]) and row.prompt_hash == prompt_hash(asked)
        expected = [likelihood(model, tokenizer, asked.context, text) for text in asked.continuations]
        assert row.log_likelihoods == pytest.approx(expected, abs=1e-4)
        assert row.prediction == "ABCD"[max(range(4), key=lambda n: expected[n])]
    assert answers.prompt_hash.nunique() == 4
    assert [*answers.question] == [excerpt(question.stem) for question in mmlu.questions]

    nats, tokens = text_loss(model, tokenizer)
    assert whole.loc[("texts_perplexity", "nats_per_token"), "questions"] == tokens
    assert whole.loc[("texts_perplexity", "nats_per_token"), "score"] == pytest.approx(nats / tokens, rel=1e-5)
    bits = nats / math.log(2) / sum(len(text.encode()) for text in TEXTS)
    assert whole.loc[("texts_perplexity", "bits_per_byte"), "score"] == pytest.approx(bits, rel=1e-5)


def likelihood(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    ids = tokenizer(context + continuation, return_tensors="pt")["input_ids"]
    start = len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        logs = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
    return float(logs.gather(1, ids[0, start:, None]).sum())


def text_loss(model: Any, tokenizer: Any) -> tuple[float, int]:
    """Nats and tokens of each text with its end, alone; the first token is predicted by nothing."""
    total, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].log_softmax(-1)
        total -= float(logs.gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    return total, count


def test_the_model_of_a_run_and_a_free_directory(evaluate: Any, folder: Path) -> None:
    run = RunDirectory.create(folder / "runs" / "mine", "name: mine\n", {})
    run.model.symlink_to(folder / "pico")
    run.set_status("complete")
    asked = ["runs/mine", "--questions", "2", "--benchmark", "mmlu", "--path", "mmlu", "--scoring", "text"]
    for number in (1, 2):
        assert evaluate(*asked).code == 0
        results = RunDirectory.open(folder / "evaluations" / f"mine-{number}").results()
        assert results[0]["questions"] == 2
    evaluate(*asked, "--split", "dev", "-o", "evaluations/mine-1").is_mistake("holds a run of another configuration")


def test_one_prompt_without_weights(evaluate: Any, folder: Path, tmp_path: Path, tokenizer: Any) -> None:
    config = json.loads((folder / "pico" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 220}))
    tokenizer.save_pretrained(tmp_path)
    done = evaluate(str(tmp_path), "--benchmark", "mmlu", "--path", "mmlu", "--shots", "3", "--show", "2")
    assert done.code == 0, done.err
    mmlu = load("mmlu", folder / "mmlu", shots=3)
    fitting = [
        n for n in range(4) if len(tokenizer(prompt(mmlu, mmlu.questions[2], n).context + " A")["input_ids"]) <= 220
    ]
    assert 0 < fitting[-1] < 3
    asked = prompt(mmlu, mmlu.questions[2], fitting[-1])
    head, _, rest = done.out.partition("----- prompt -----\n")
    assert rest == f"{asked.context}\n----- answers, as they continue it -----\n" + "".join(
        f'{letter:<6}" {letter}"{"   <- gold" if letter == "C" else ""}\n' for letter in "ABCD"
    )
    assert f"{fitting[-1]} shots" in head and prompt_hash(asked) in head and "subject anatomy, row 2" in head
    evaluate("pico", "--benchmark", "mmlu", "--path", "mmlu", "--show", "4").is_mistake("mmlu has 4 questions")


@pytest.mark.parametrize(("scoring", "last"), [("generate", "答案："), ("reason", "C. 石膏\n")])
def test_one_prompt_of_a_generated_answer(evaluate: Any, folder: Path, scoring: str, last: str) -> None:
    done = evaluate("pico", "--benchmark", "cmexam", "--path", "exam.csv", "--scoring", scoring, "--show", "1")
    assert done.code == 0, done.err
    head, _, rest = done.out.partition("----- prompt -----\n")
    assert rest.startswith("题目：桂枝汤的组成是\nA. 桂枝\n")
    assert rest.endswith(f"{last}\n----- what the model writes next, at most 512 tokens; gold: AB -----\n")
    assert "cmexam, question 1 of 2" in head and "0 shots" in head


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name something to measure with --benchmark or --perplexity"),
        (["--benchmark", "mmul"], "there is no benchmark 'mmul'; did you mean 'mmlu'?"),
        (["--benchmark", "mmlu", "--path", "mmlus"], "no file or folder 'mmlus'"),
        (
            ["--benchmark", "mmlu", "--path", "mmlu", "--shots", "4"],
            "has 3 questions with an answer to show",
        ),
        (["--benchmark", "cmexam", "--path", "exam.csv", "--shots", "1"], "shots of cmexam need shots_from"),
        (["--benchmark", "cmexam", "--path", "exam.csv", "--shots", "1", "--shots-from", "exam.csv"], "own test file"),
        (["--benchmark", "mmlu", "--benchmark", "mmlu"], "two benchmarks have the name 'mmlu'"),
        (["--benchmark", "mmlu", "--shots", "1", "--shots", "2"], "--shots is given twice for one benchmark"),
        (["--benchmark", "multiple_choice", "--path", "exam.csv", "--columns", "{a: ["], "is no YAML"),
        (["--benchmark", "mmlu", "--scoring", "letters"], "must be 'letter', 'text', 'generate' or 'reason'"),
        (["--perplexity", "texts.jsonl", "--shots", "2"], "shots is for exams, not for perplexity"),
        (["--perplexity", "text.jsonl"], "no file or folder 'text.jsonl' in .; did you mean 'texts.jsonl'"),
    ],
)
def test_mistakes(evaluate: Any, folder: Path, arguments: list[str], words: str) -> None:
    evaluate("pico", *arguments, "-o", "never").is_mistake(words)
    assert not (folder / "never").exists()


def test_models_that_are_not_there(evaluate: Any, folder: Path) -> None:
    RunDirectory.create(folder / "runs" / "begun", "name: begun\n", {})
    asked = ("--benchmark", "mmlu", "--path", "mmlu")
    evaluate("runs/begun", *asked).is_mistake("this run has no model yet (running)")
    evaluate("./none", *asked).is_mistake("model.path: no folder './none'")
    evaluate("none.gguf", *asked).is_mistake("none.gguf: there is no such file")
    evaluate("mmlu", *asked).is_mistake("The model mmlu could not be loaded")


def test_options_belong_to_the_benchmark_before_them() -> None:
    order = ["shots", "only", "benchmark", "path", "only", "benchmark", "shots", "columns", "perplexity", "name"]
    values = {
        "only": ("law", "anatomy"),
        "benchmark": ("mmlu", "cmexam"), "shots": (5, 0), "path": ("m",), "columns": ("{answer: key}",),
        "perplexity": ("texts/wiki.test.jsonl",), "name": ("w",), "of": (),
    }  # fmt: skip
    assert group(order, values) == [
        {"benchmark": "mmlu", "shots": 5, "path": "m", "only": ["law", "anatomy"]},
        {"benchmark": "cmexam", "shots": 0, "only": ["law"], "columns": {"answer": "key"}},
        {"perplexity": "wiki.test", "path": "texts/wiki.test.jsonl", "name": "w"},
    ]


def test_chosen_subjects(evaluate: Any, folder: Path) -> None:
    """`--only` and `--without` are those of a benchmark in a configuration, for the table and for one prompt."""
    for part, count in (("dev", 1), ("test", 3)):
        rows = [[f"Law {n}?", "one", "two", "three", "four", "A"] for n in range(count)]
        table(folder / "two" / part / f"international_law_{part}.csv", *rows)
        (folder / "two" / part / f"anatomy_{part}.csv").write_bytes(
            (folder / "mmlu" / part / f"anatomy_{part}.csv").read_bytes()
        )
    asked = ("pico", "--path", "two", "--benchmark", "mmlu")
    chosen = (*asked, "--only", "health", "--only", "international_law", "--without", "anatomy")
    done = evaluate(*chosen, "-o", "chosen")
    assert done.code == 0, done.err
    assert RunDirectory.open(folder / "chosen").answers(0, "mmlu")["subject"] == ["international_law"] * 3
    assert "mmlu, question 1 of 3: subject international_law, row 1" in evaluate(*chosen, "--show", "1").out
    evaluate(*asked, "--only", "anatomi").is_mistake(
        "there is no subject or category 'anatomi'; did you mean 'anatomy'"
    )
    evaluate(*asked[:3], "--benchmark", "lm_eval/piqa", "--only", "a").is_mistake("only is not for tasks of lm_eval")


def test_names_of_models(tmp_path: Path) -> None:
    (tmp_path / "small.Q4_1.gguf").touch()
    assert named_model(str(tmp_path / "small.Q4_1.gguf")) == {
        "name": "small.Q4_1",
        "model": {"path": str(tmp_path), "gguf_file": "small.Q4_1.gguf"},
    }
    assert named_model("meta-llama/Llama-2-13b-hf")["name"] == "Llama-2-13b-hf"
    with pytest.raises(UserError, match="no such file"):
        named_model("gone.gguf")


def test_the_files_are_those_of_a_run(evaluate: Any, folder: Path) -> None:
    assert evaluate("pico", "--benchmark", "mmlu", "--path", "mmlu", "-o", "again").code == 0
    row = RunDirectory.open(folder / "again").results()[0]
    assert {"point", "tokens", "experience", "role", "benchmark", "shots", "category", "metric", "score"} < row.keys()
    assert yaml.safe_load((folder / "again" / "config.yaml").read_text())["evaluation"]["retention"][0]["shots"] == 0
