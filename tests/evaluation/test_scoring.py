"""Scores against brute force: each context + continuation alone, a plain forward pass, log-softmax, sum."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
)

from clmed.config import EvaluationConfig
from clmed.errors import UserError
from clmed.evaluation.encoding import encode
from clmed.evaluation.evaluator import most_tokens
from clmed.evaluation.perplexity import perplexity
from clmed.evaluation.scoring import Request, longest, score, score_tokens

WORDS = [
    "the",
    "capital",
    "Norland",
    "is",
    "Karo",
    "river",
    "harbour",
    "quick",
    "brown",
    "fox",
    "感冒",
    "桂枝汤",
    "0123",
]


def sentence(draw: random.Random, most: int) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(2, most)))


def make_requests(seed: int = 0, each: int = 5) -> list[Request]:
    """Three groups with a few-shot prefix, answers by letter, by text and by letter set, in a shuffled order."""
    draw = random.Random(seed)
    sets = tuple("".join(c) + "\n" for k in range(1, 6) for c in itertools.combinations("ABCDE", k))
    requests = []
    for group in ("letter", "text", "sets"):
        shots = "".join(f"Question: {sentence(draw, 8)}\nAnswer: B\n\n" for _ in range(3))
        for _ in range(each):
            question = f"{shots}Question: {sentence(draw, 20)}?\n"
            if group == "letter":
                request = Request(group=group, context=f"{question}Answer:", continuations=(" A", " B", " C", " D"))
            elif group == "text":
                options = tuple(f" {sentence(draw, 6)}" for _ in range(4))
                request = Request(
                    group=group, context=f"{question}Answer:", continuations=(*options, options[0] + " is")
                )
            else:
                request = Request(group=group, context=f"{question}答案：", continuations=sets)
            requests.append(request)
    draw.shuffle(requests)
    return requests


def log_probability(model, ids: list[int], start: int) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    chosen = logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
    return chosen[start - 1 :].double().sum().item()


def brute_force(model, tokenizer, requests: list[Request]) -> list[np.ndarray]:
    results = []
    for request in requests:
        texts = [tokenizer(request.context + end)["input_ids"] for end in request.continuations]
        parts = [tokenizer(request.context)["input_ids"], *texts]
        start = next((i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1), len(parts[0]))
        results.append(np.array([log_probability(model, text, start) for text in texts]))
    return results


def assert_close(results: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-5) -> None:
    assert [len(result) for result in results] == [len(result) for result in expected]
    # Sums of up to 20 terms of about 6 nats: the tolerance is per nat.
    np.testing.assert_allclose(np.concatenate(results), np.concatenate(expected), rtol=tolerance / 5, atol=tolerance)


@pytest.fixture(scope="module")
def requests_() -> list[Request]:
    return make_requests()


@pytest.fixture(scope="module")
def expected(make_model, tokenizer, requests_) -> list[np.ndarray]:
    return brute_force(make_model(), tokenizer, requests_)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
def test_equals_brute_force(make_model, tokenizer, requests_, expected, attention, batch_tokens):
    """Batches of one row (each with its prefix), of a few, and of all rows (no prefix is worth a pass of its own)."""
    model = make_model(attn_implementation=attention)
    assert_close(score(model, tokenizer, requests_, batch_tokens=batch_tokens), expected)


def watch(model) -> list[torch.Size]:
    """The (rows, columns) of every forward pass to come."""
    widths: list[torch.Size] = []
    model.register_forward_pre_hook(lambda _, __, inputs: widths.append(inputs["input_ids"].shape), with_kwargs=True)
    return widths


def test_shared_prefix_is_run_once(make_model, tokenizer, requests_):
    model = make_model()
    widths = watch(model)
    score(model, tokenizer, requests_, batch_tokens=700)
    longest_request = max(tokens.longest for tokens in encode(tokenizer, requests_))
    prefixes = [width for rows, width in widths if rows == 1 and width > 30]
    assert len(prefixes) >= 3
    assert sum(rows * width for rows, width in widths) < 0.7 * len(requests_) * longest_request


def test_groups_and_order_do_not_matter(make_model, tokenizer, requests_, expected):
    alone = [
        Request(group=str(i), context=request.context, continuations=request.continuations)
        for i, request in enumerate(requests_)
    ]
    assert_close(score(make_model(), tokenizer, alone, batch_tokens=700), expected)
    together = [Request(group="", context=r.context, continuations=r.continuations) for r in requests_]
    assert_close(score(make_model(), tokenizer, together, batch_tokens=700), expected)
    assert_close(score(make_model(), tokenizer, requests_[::-1], batch_tokens=700)[::-1], expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_does_not_matter(make_model, tokenizer, requests_, expected, side):
    other = copy.deepcopy(tokenizer)
    other.padding_side = other.truncation_side = side
    assert_close(score(make_model(), other, requests_, batch_tokens=700), expected)


def test_letter_sets_share_their_beginnings(make_model, tokenizer, requests_):
    """31 sets of five letters need 31 inputs at most, whatever their length."""
    model = make_model()
    one = next(request for request in requests_ if request.group == "sets")
    widths = watch(model)
    score(model, tokenizer, [one], batch_tokens=1000)
    assert widths == [(1, widths[0][1])]
    assert widths[0][1] <= len(tokenizer(one.context)["input_ids"]) + 31


def test_continuations_that_share_tokens_or_extend_one_another(make_model, tokenizer):
    """The first shared token counts too, and a single continuation has its own probability."""
    context = "Question: where?\nAnswer:"
    ends = (" the quick", " the brown fox", " the", " the quick brown")
    results = score(make_model(), tokenizer, [Request(group="", context=context, continuations=ends)], batch_tokens=100)
    for end, value in zip(ends, results[0], strict=True):
        one = [Request(group="", context=context, continuations=(end,))]
        assert_close(score(make_model(), tokenizer, one, batch_tokens=100), [np.array([value])])
        assert_close(brute_force(make_model(), tokenizer, one), [np.array([value])])


def test_questions_that_are_the_same_or_begin_another(make_model, tokenizer):
    """Each keeps a token of its own after the shared prefix."""
    context = "Question: where is the harbour of Karo, and what is the capital of Norland?\nAnswer:"
    longer = f"{context} B\nAnswer:"
    requests = [Request(group="", context=text, continuations=(" A", " B")) for text in (context, context, longer)]
    assert_close(
        score(make_model(), tokenizer, requests, batch_tokens=10), brute_force(make_model(), tokenizer, requests)
    )


@pytest.mark.filterwarnings("error::FutureWarning")
def test_nothing_that_is_going_away_is_used(make_model, tokenizer, requests_):
    score(make_model(), tokenizer, requests_, batch_tokens=700)


def test_absolute_positions(tokenizer, requests_):
    torch.manual_seed(0)
    settings = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=512)
    model = GPT2LMHeadModel(settings).eval()
    assert longest(model) == 512
    assert_close(
        score(model, tokenizer, requests_, batch_tokens=700), brute_force(model, tokenizer, requests_), tolerance=2e-5
    )


def test_half_precision(make_model, tokenizer, requests_, expected):
    """bf16 weights, and fp32 weights under autocast: as near as bf16 is."""
    for attention in ("sdpa", "eager"):
        model = make_model(attn_implementation=attention)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = score(model, tokenizer, requests_, batch_tokens=700)
        assert_close(cast, expected, tolerance=0.1)
        assert_close(score(model.bfloat16(), tokenizer, requests_, batch_tokens=700), expected, tolerance=0.1)


def test_leaves_no_trace(make_model, tokenizer, requests_):
    model = make_model(attention_dropout=0.5).train()
    model.model.layers[0].eval()
    model.lm_head.weight.requires_grad_(False)
    model.model.norm.weight.grad = torch.ones(32)
    found = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    weights, config, state = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config), torch.get_rng_state()
    first = score(model, tokenizer, requests_, batch_tokens=700)
    assert found == ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()])
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled()
    assert config.to_dict() == model.config.to_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert [p.grad is None for p in model.parameters()].count(False) == 1
    assert torch.equal(model.model.norm.weight.grad, torch.ones(32))
    assert_close(first, score(model.eval(), tokenizer, requests_, batch_tokens=700), tolerance=1e-9)


def test_progress_counts_every_request(make_model, tokenizer, requests_):
    told: list[int] = []
    score(make_model(), tokenizer, requests_, batch_tokens=700, progress=told.append)
    assert len(told) > 3
    assert sum(told) == len(requests_)


def test_refusals(make_model, tokenizer):
    model = make_model(max_position_embeddings=32)
    for request, message in [
        (Request(group="g", context="", continuations=("a",)), "empty"),
        (Request(group="g", context="a", continuations=()), "empty"),
        (Request(group="g", context="a", continuations=("b", "")), "empty"),
        (Request(group="g", context="0 " * 40, continuations=("b",)), r"has \d+ tokens; the model takes 32"),
    ]:
        with pytest.raises(ValueError, match=message):
            score(model, tokenizer, [request], batch_tokens=100)
    fine = [Request(group="g", context="a", continuations=("b",))]
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UserError, match=r"LlamaForCausalLM cannot be measured.*linear_attention"):
        score(model, tokenizer, fine, batch_tokens=100)
    with pytest.raises(UserError, match="flex_attention"):
        score(make_model(attn_implementation="flex_attention"), tokenizer, fine, batch_tokens=100)
    assert score(make_model(), tokenizer, [], batch_tokens=100) == []


def test_models_that_cannot_be_scored_are_told_before_any_work():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=8, n_layer=1, n_head=2))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, state_size=2))
    for model, words in ((bloom, "position_ids"), (mamba, "linear_attention")):
        asked = EvaluationConfig.model_validate({"gain": [{"benchmark": "mmlu"}]})
        with pytest.raises(UserError, match=rf"{type(model).__name__} cannot be measured: .*{words}"):
            most_tokens(asked, model)
        assert most_tokens(EvaluationConfig.model_validate({"gain": [{"perplexity": "web"}]}), model) > 1_000_000


def test_attention_window_limits_the_length(make_model):
    model = make_model()
    model.config.sliding_window = 64
    assert longest(model) == 64
    model.config.layer_types = ["full_attention", "full_attention"]
    assert longest(model) == 512


def shard(model, **settings):
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, **settings)
    return fully_shard(model, mesh=mesh, **settings)


def edit(parameters: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            (parameter.to_local() if isinstance(parameter, DTensor) else parameter).mul_(0.5)


def in_two_ranks(rank: int, folder, make_model, tokenizer, requests: list[Request], rows: list[dict]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = shard(make_model())
    shards = list(model.parameters())
    told: list[int] = []
    flat = {"first": score(model, tokenizer, requests, batch_tokens=700, progress=told.append)}
    assert sum(told) == len(requests)
    flat["again"] = score(model, tokenizer, requests[:1], batch_tokens=700)
    flat["perplexity"] = [np.array(perplexity(model, rows, batch_tokens=64))]
    assert all(now is before for now, before in zip(model.parameters(), shards, strict=True))
    edit(shards)
    flat["edited"] = score(model, tokenizer, requests, batch_tokens=700)
    flat["edited_perplexity"] = [np.array(perplexity(model, rows, batch_tokens=64))]
    half = shard(make_model(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    flat["half"] = score(half, tokenizer, requests, batch_tokens=700)
    np.savez(folder / f"{rank}.npz", **{name: np.concatenate(values) for name, values in flat.items()})
    dist.destroy_process_group()


def test_two_sharded_ranks_equal_one_process(make_model, tokenizer, requests_, expected, tmp_path):
    """An odd number of batches, and an edit of the local shards between two measurements takes effect."""
    requests = requests_[:13]
    draw = np.random.default_rng(0)
    ids = draw.integers(5, 250, size=(5, 32))
    rows = [{"input_ids": row, "position_ids": np.arange(32) % 16, "labels": row} for row in ids]
    torch.multiprocessing.start_processes(
        in_two_ranks, (tmp_path, make_model, tokenizer, requests, rows), nprocs=2, start_method="fork"
    )
    ranks = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1)]
    assert all(np.array_equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    assert_close([ranks[0]["first"]], [np.concatenate(expected[:13])])
    assert_close([ranks[0]["again"]], expected[:1])
    assert_close([ranks[0]["half"]], [np.concatenate(expected[:13])], tolerance=0.1)
    model = make_model()
    np.testing.assert_allclose(ranks[0]["perplexity"], perplexity(model, rows, batch_tokens=64), rtol=1e-6)
    edit(list(model.parameters()))
    changed = np.concatenate(score(model, tokenizer, requests, batch_tokens=700))
    assert np.abs(changed - ranks[0]["first"]).max() > 0.1
    assert_close([ranks[0]["edited"]], [changed])
    np.testing.assert_allclose(ranks[0]["edited_perplexity"], perplexity(model, rows, batch_tokens=64), rtol=1e-6)


def test_tokens_that_are_not_the_most_probable_are_counted(make_model, tokenizer):
    model = make_model(initializer_range=0.3)
    requests = make_requests()
    encoded = encode(tokenizer, requests)
    groups = [request.group for request in requests]
    found = score_tokens(model, groups, encoded, batch_tokens=300, misses=True)
    expected = []
    for tokens in encoded:
        for end in tokens.continuations:
            ids = torch.tensor([[*tokens.context.tolist(), *end]])
            with torch.no_grad():
                best = model(input_ids=ids, use_cache=False).logits[0].argmax(-1)
            expected.append(int((best[len(tokens.context) - 1 : -1] != ids[0, len(tokens.context) :]).sum()))
    assert [int(value) for _, misses in found for value in misses] == expected
    assert len(set(expected)) > 2
    for (sums, _), value in zip(found, score(model, tokenizer, requests, batch_tokens=300), strict=True):
        np.testing.assert_array_equal(sums, value)
