"""Generated texts against a plain loop; on two sharded ranks; and what is read in them."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from clmed.config import BenchmarkConfig, EvaluationConfig
from clmed.errors import UserError
from clmed.evaluation.benchmarks import load_benchmark
from clmed.evaluation.evaluator import make_benchmarks
from clmed.evaluation.explanations import explanation_scores, prompts, read_answer, read_explanation
from clmed.evaluation.generation import generate
from tests.evaluation.test_scoring import shard
from tests.small import on_ranks

PROMPTS = [
    "Question: who?\nAnswer:",
    "题目：治疗感冒的常用药是？\n答案：",
    "The quick brown fox",
    "Karo",
    "0 1 2 3 4 5 6 7",
]


def plain(model, tokenizer, prompt: str, most: int) -> str:
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + most:
            token = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


@pytest.mark.parametrize("batch_tokens", [1, 100, 10_000])
def test_equals_a_plain_loop(make_model, tokenizer, batch_tokens):
    """Whatever the batches, and an end-of-text token ends a row while the others go on."""
    model = make_model(initializer_range=0.5).train()
    model.lm_head.weight.data[tokenizer.eos_token_id] *= 1.5
    state = torch.get_rng_state()
    found = generate(model, tokenizer, PROMPTS, most=12, batch_tokens=batch_tokens)
    assert model.training and torch.equal(state, torch.get_rng_state())
    model.eval()
    assert found == [plain(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert len(set(found)) > 2


def test_room_is_a_prompts_own(make_model, tokenizer):
    """Where positions run out, whatever the longest prompt of the batch is."""
    lengths = [len(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    room = [min(12, max(lengths) + 3 - length) for length in lengths]
    assert min(room) == 3 and max(room) > 6
    model = make_model(max_position_embeddings=max(lengths) + 3, initializer_range=0.5)
    found = generate(model, tokenizer, PROMPTS, most=12, batch_tokens=10_000)
    assert found == [plain(model, tokenizer, prompt, most) for prompt, most in zip(PROMPTS, room, strict=True)]


def test_stops(make_model, tokenizer):
    """At a stop text, which is left out; a batch ends with its last row; no room is no text."""
    model = make_model(initializer_range=0.5)
    whole = generate(model, tokenizer, PROMPTS[:2], most=12, batch_tokens=1000)
    stop = whole[0][2:4]
    forwards: list[int] = []
    model.register_forward_pre_hook(lambda *_: forwards.append(1))
    found = generate(model, tokenizer, PROMPTS[:1], most=12, stops=[stop], batch_tokens=1000)
    assert found == [whole[0][: whole[0].index(stop)]]
    assert len(forwards) < 12
    short = make_model(max_position_embeddings=8, initializer_range=0.5)
    assert generate(short, tokenizer, ["0 " * 40], most=5, batch_tokens=100) == [""]
    assert generate(model, tokenizer, [], most=5, batch_tokens=100) == []


def test_two_sharded_ranks(make_model, tokenizer, tmp_path):
    """The same texts, and every rank the same number of forwards, though their rows end at different steps."""

    def on_rank(world):
        model = shard(make_model(initializer_range=0.5))
        forwards: list[int] = []
        model.register_forward_pre_hook(lambda *_: forwards.append(1))
        found = generate(model, tokenizer, PROMPTS, most=12, stops=["a", "o"], batch_tokens=40)
        counts = [0, 0]
        dist.all_gather_object(counts, len(forwards))
        return found, counts

    found, counts = on_ranks(2, on_rank, tmp_path)
    assert counts[0] == counts[1] > 3
    alone = generate(make_model(initializer_range=0.5), tokenizer, PROMPTS, most=12, stops=["a", "o"], batch_tokens=40)
    assert found == alone


@pytest.mark.parametrize(
    ("text", "order", "letters"),
    [
        ("AB\n解析：因为C", "generate", "AB"),
        (" B. Karo\nExplanation: A", "generate", "B"),
        ("Ｂ、Ａ", "generate", "AB"),
        ("", "generate", ""),
        ("都不对", "generate", ""),
        ("AA", "generate", ""),
        ("F", "generate", ""),
        ("Because", "generate", ""),
        ("A和C", "generate", "AC"),
        ("A and B", "generate", "AB"),
        ("C, A, and B.", "generate", "ABC"),
        ("A&C", "generate", "AC"),
        ("A or B", "generate", ""),
        ("A, or B", "generate", ""),
        ("A或B", "generate", ""),
        ("A fever", "generate", ""),
        ("A. Fever or cough", "generate", "A"),
        ("解析：答案：A不对，所以\n答案：D\n", "reason", "D"),
        ("解析：所以选B", "reason", ""),
    ],
)
def test_reading_answers(text, order, letters):
    assert read_answer(text, dict.fromkeys("ABCDE", "x"), order) == letters


def test_reading_explanations():
    assert read_explanation("AB\n解析：因为甲。\n所以乙。", "generate") == "因为甲。\n所以乙。"
    assert read_explanation("AB", "generate") == ""
    assert read_explanation("解析：因为甲。\n答案：B\n", "reason") == "因为甲。"


@pytest.mark.parametrize("order", ["generate", "reason"])
def test_a_benchmark(make_model, tokenizer, tmp_path, order):
    """From the configuration to scores and records: a model that says nothing readable is always wrong."""
    pytest.importorskip("sacrebleu", reason="extra `reasoning`")
    pytest.importorskip("rouge_chinese", reason="extra `reasoning`")
    file = tmp_path / "exam.csv"
    rows = [f'题目{n},"A 甲\nB 乙\nC 丙",AB,{"因为甲乙" if n else ""}' for n in range(3)]
    file.write_text("\n".join(["Question,Options,Answer,Explanation", *rows]) + "\n", encoding="utf-8")
    evaluation = EvaluationConfig.model_validate(
        {"gain": [{"benchmark": "cmexam", "path": str(file), "scoring": order}]}
    )
    (made,) = make_benchmarks(evaluation, path_of=Path, corpus=None, tokenizer=tokenizer, positions=512)
    measured = made.measure(make_model(max_position_embeddings=100))
    scores = {row["metric"]: row for row in measured.scores if row["category"] == "all"}
    assert {"accuracy", "f1", "unreadable", "bleu_1", "bleu_4", "rouge_1", "rouge_2", "rouge_l"} <= scores.keys()
    assert scores["rouge_l"]["questions"] == 2
    assert scores["accuracy"]["score"] == measured.answers["correct"].count(True) / 3
    assert scores["unreadable"]["score"] == measured.answers["prediction"].count("") / 3
    assert len(measured.answers["generated"]) == 3 and all(measured.answers["generated"])
    assert measured.answers["shots"] == [0, 0, 0] and len(set(measured.answers["prompt_hash"])) == 3

    told: list[str] = []
    length = max(measured.answers["tokens"])
    settings = {"path_of": Path, "corpus": None, "tokenizer": tokenizer, "say": told.append}
    make_benchmarks(evaluation, positions=length + 1, **settings)
    assert told == [f"cmexam: 3 of 3 prompts leave less than 512 of {length + 1} positions, where the answer ends"]
    with pytest.raises(
        UserError, match=rf"questions are longer, without any shots, than the model's {length} positions"
    ):
        make_benchmarks(evaluation, positions=length, **settings)


def test_cases_are_reasoned_about(make_model, tokenizer, tmp_path):
    """Only the patients' histories are asked; each prompt ends before the answer."""
    pytest.importorskip("sacrebleu", reason="extra `reasoning`")
    pytest.importorskip("rouge_chinese", reason="extra `reasoning`")
    history = "患者，男，45岁。反复胸痛三年，活动后加重，休息后缓解。"
    file = tmp_path / "exam.csv"
    rows = [f'{stem}诊断是,"A 甲\nB 乙\nC 丙",B,因为甲' for stem in (history, "此病的", history.replace("45", "60"))]
    file.write_text("\n".join(["Question,Options,Answer,Explanation", *rows]) + "\n", encoding="utf-8")
    settings = {"benchmark": "cases", "of": "cmexam", "path": str(file), "scoring": "reason", "longer_than": 20}
    evaluation = EvaluationConfig.model_validate({"gain": [settings]})
    (made,) = make_benchmarks(evaluation, path_of=Path, corpus=None, tokenizer=tokenizer, positions=512)
    measured = made.measure(make_model(max_position_embeddings=100))
    assert measured.answers["index"] == [0, 2] and len(measured.answers["generated"]) == 2
    scores = {row["metric"]: row for row in measured.scores if row["category"] == "all"}
    assert scores["accuracy"]["questions"] == scores["rouge_l"]["questions"] == 2
    benchmark = load_benchmark(BenchmarkConfig.model_validate(settings), file)
    assert [text.endswith("C. 丙\n") for text in prompts(benchmark)] == [True, True]


def test_bleu_and_rouge_of_characters():
    """By hand: 3 of 4 characters are right, 1 of 3 pairs, the longest common subsequence is 3; lengths are equal."""
    pytest.importorskip("sacrebleu", reason="extra `reasoning`")
    pytest.importorskip("rouge_chinese", reason="extra `reasoning`")
    scores, questions = explanation_scores(["甲乙丁丙", "戊", ""], ["甲乙丙己", "nan", "天地玄黄"])
    assert questions == 2  # one has no explanation in the file; an empty one counts as 0
    brevity = np.exp(1 - 8 / 4)
    assert scores["bleu_1"] == pytest.approx(0.75 * brevity)
    assert scores["rouge_1"] == pytest.approx(0.75 / 2)
    assert scores["rouge_2"] == pytest.approx((1 / 3) / 2)
    assert scores["rouge_l"] == pytest.approx(0.75 / 2)
    perfect, _ = explanation_scores(["气虚血瘀证"], ["气虚血瘀证"])
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0))
    assert explanation_scores(["甲"], [""]) == ({}, 0)
