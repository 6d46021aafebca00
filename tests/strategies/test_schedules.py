"""Rewarm and curriculum: the rates and rows that they choose, against the formulas; and both directions of methods."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from clmed.strategies.curriculum import best

from clmed.data.corpus import Corpus
from clmed.data.quality import BIGRAMS, Bigrams
from clmed.errors import UserError
from clmed.training.sharding import World
from tests.small import GENERAL, make_trainer, small_config

QUIET = {"gain": [], "retention": []}


class Rates:
    supports_distributed = True

    def __init__(self):
        self.rates = []

    def after_training_iteration(self, trainer, **kwargs):
        self.rates.append(trainer.log["lr"])


def test_rewarm_warms_up_decays_and_replays_whatever_the_file_says(tokenizer, make_model):
    optimizer = {"lr": 1e-3, "decay": "infinite", "level": 0.5, "warmup": 0.0}
    stream = [{"name": "one", "data": ["medical"], "tokens": 16_000, "optimizer": optimizer}]
    given = {"rewarm": {"from": GENERAL, "ratio": 0.25, "warmup": 0.2, "final": 0.05}}
    trainer = make_trainer(small_config(given, stream=stream, evaluation=QUIET), make_model(1), tokenizer, World())
    trainer.plugins.append(rates := Rates())
    trainer.train(trainer.stream)
    steps = len(rates.rates)
    warm = math.ceil(0.2 * steps)
    expected = [1e-3 * (step + 1) / warm for step in range(warm)]
    for step in range(warm, steps):
        down = (1 + math.cos(math.pi * (step - warm) / (steps - 1 - warm))) / 2
        expected.append(1e-3 * (0.05 + 0.95 * down))
    assert rates.rates == pytest.approx(expected)
    batches = trainer.stream[0].batches
    tokens = batches.trained()[-1], batches.trained(domain_only=True)[-1]
    assert 1 - tokens[1] / tokens[0] == pytest.approx(0.25, abs=0.02)


def corpus_of(config, tokenizer):
    return Corpus.of(config, tokenizer, config.training.sequence_length)


def test_likelihoods_are_those_of_the_bigram_formula(tokenizer):
    """Against counts in dictionaries, document by document."""
    corpus = corpus_of(small_config({}), tokenizer)
    reference, rows = corpus.rows("exam"), corpus.rows("medical").select(np.arange(5))
    single, first, pairs = Counter(), Counter(), Counter()

    def walk(each):
        for row, count in zip(each.data, each.tokens, strict=True):
            previous = None
            tokens, positions = row["input_ids"][:count], row["position_ids"][:count]
            line = []
            for token, position in zip(tokens, positions, strict=True):
                line.append((None if position == 0 else previous, int(token)))
                previous = int(token)
            yield line

    for line in walk(reference):
        for before, token in line:
            single[token] += 1
            if before is not None:
                first[before] += 1
                pairs[before, token] += 1
    expected = []
    for line in walk(rows):
        logs = []
        for before, token in line:
            alone = (single[token] + 1) / (single.total() + len(tokenizer))
            share = BIGRAMS if first[before] else 0.0
            logs.append(math.log((share * pairs[before, token] / first[before] if share else 0) + (1 - share) * alone))
        expected.append(sum(logs) / len(logs))
    found = Bigrams([reference], len(tokenizer)).log_likelihoods(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.fixture
def muddied(tmp_path):
    """A source whose documents are sentences, every other one with its letters shuffled; and a clean reference."""
    rng = np.random.default_rng(0)
    nouns = ["fever", "cough", "heart", "liver", "kidney", "blood", "pulse", "fluid", "tissue", "nerve"]
    for name, count in (("mixed", 400), ("clean", 100)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for index in range(count):
                words = [f"the {rng.choice(nouns)} of the {rng.choice(nouns)} is a sign of {rng.choice(nouns)}."]
                text = " ".join(words * 3)
                if name == "mixed" and index % 2:
                    text = "".join(rng.permutation(list(text)))
                file.write(json.dumps({"text": f"{text} {index}"}) + "\n")
    small = small_config({})
    sources = {name: {"path": str(tmp_path / f"{name}.jsonl"), "format": "text"} for name in ("mixed", "clean")}
    data = {name: source.model_dump() for name, source in small.data.items()} | sources
    stream = [{"name": "one", "data": ["mixed"], "tokens": 30_000, "optimizer": {"lr": 1e-3}}]
    return {"data": data, "stream": stream}


def test_curriculum_passes_several_times_over_the_clean_part(muddied, tokenizer, make_model):
    """The same tokens as naive training: the clean text is learnt better (the paper's direction)."""
    clean = {"gain": [], "retention": [{"perplexity": "clean"}]}
    scores = {}
    for name, strategy in {
        "naive": {},
        "curriculum": {"curriculum": {"of": ["mixed"], "reference": ["clean"], "keep": 0.25}},
    }.items():
        config = small_config(strategy, evaluation=clean, **muddied)
        trainer = make_trainer(config, make_model(1), tokenizer, World())
        trainer.train(trainer.stream)
        scores[name] = next(v for n, (_, v) in trainer.evaluator.get_all_metrics().items() if "nats" in n)
        batches = trainer.stream[0].batches
        assert batches.trained(domain_only=True)[-1] == pytest.approx(30_000, abs=128)
        kept = batches.rows[0]
    whole = trainer.corpus.rows("mixed")
    assert len(kept) == round(0.25 * len(whole))
    texts = [tokenizer.decode(ids) for ids in kept.data["input_ids"][:]]
    assert sum(text.count("sign of") for text in texts) > 2 * len(texts), "muddied rows were kept"
    assert scores["curriculum"][-1] < scores["naive"][-1] < scores["naive"][0]


def test_best_keeps_the_order_and_one_row_at_least(tokenizer):
    rows = corpus_of(small_config({}), tokenizer).rows("medical")
    model = Bigrams([rows], len(tokenizer))
    values = model.log_likelihoods(rows)
    kept = best(rows, model, 0.2)
    chosen = np.stack([row["input_ids"] for row in kept.data])
    ranked = sorted(np.argsort(-values, kind="stable")[: len(kept)])
    assert (chosen == np.stack([rows.data[int(index)]["input_ids"] for index in ranked])).all()
    assert len(best(rows, model, 1e-9)) == 1 and len(best(rows, model, 1.0)) == len(rows)


def test_an_epoch_of_a_measurement_point_is_one_of_the_whole_text(tokenizer, make_model):
    points = {"epochs": 2, "measure_at": ["0.5 epochs", "1 epoch", "2 epochs"]}
    stream = [{"name": "one", "data": ["medical"], "optimizer": {"lr": 1e-3}} | points]
    for strategy in ({}, {"curriculum": {"of": ["medical"], "reference": ["exam"], "keep": 0.1}}):
        config = small_config(strategy, stream=stream, evaluation=QUIET)
        (one,) = make_trainer(config, make_model(), tokenizer, World()).stream
        steps = len(one.batches)
        assert [*one.milestones.values()] == ["0.5 epochs", "1 epoch"], "the end is measured anyway"
        assert [*one.milestones] == pytest.approx([steps / 4, steps / 2], abs=1)


def test_a_source_does_not_rank_itself(tokenizer, make_model):
    with pytest.raises(UserError, match="it would rank itself"):
        strategy = {"curriculum": {"of": ["medical"], "reference": ["medical"]}}
        make_trainer(small_config(strategy), make_model(), tokenizer, World())


STREAM = [{"name": "one", "data": ["medical"], "tokens": 40_000, "optimizer": {"lr": 5e-3}}]
BOTH = {"gain": [{"perplexity": "medical"}], "retention": [{"perplexity": "english"}]}


@pytest.fixture(scope="module")
def knowing(tokenizer, make_model):
    """The weights of a model that has learnt English text."""
    stream = [{"name": "english", "data": ["english"], "tokens": 60_000, "optimizer": {"lr": 5e-3}}]
    trainer = make_trainer(small_config({}, stream=stream, evaluation=QUIET), make_model(1), tokenizer, World())
    trainer.train(trainer.stream)
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


@pytest.fixture(scope="module")
def outcome(knowing, tokenizer, make_model):
    """(medical, english) nats per token before and after training on medical text with a strategy."""
    made = {}

    def get(strategy):
        key = json.dumps(strategy)
        if key not in made:
            model = make_model(1)
            model.load_state_dict(knowing)
            trainer = make_trainer(small_config(strategy, stream=STREAM, evaluation=BOTH), model, tokenizer, World())
            trainer.train(trainer.stream)
            found = {n: v for n, (_, v) in trainer.evaluator.get_all_metrics().items() if "nats" in n}
            made[key] = tuple(next(v for n, v in found.items() if name in n) for name in ("medical", "english"))
        return made[key]

    return get


@pytest.mark.parametrize(
    "strategy",
    [
        {"average": {"alpha": 0.5}},
        {"soup": {}},
        {"ema": {"decay": 0.97}},
        {"merge": {"method": "ties"}},
        {"merge": {"scale": 0.5}},
        {"freeze": {"layers": 1}},
        {"rewarm": {"from": ["english"], "ratio": 0.25}},
    ],
    ids=json.dumps,
)
def test_less_is_forgotten_than_by_naive_training_and_something_is_learnt(strategy, outcome):
    """The direction that each method's paper claims."""
    (medical, english), (_, naive) = outcome(strategy), outcome({})
    assert naive[-1] > naive[0] + 0.1, "naive training must forget"
    assert english[-1] < naive[-1], (english, naive)
    assert medical[-1] < medical[0]
