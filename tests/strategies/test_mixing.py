"""Replay, interleave and joint: what they put into the batches."""

import numpy as np
import pytest

from clmed.data.rows import document_texts
from clmed.errors import UserError
from clmed.training.sharding import World
from tests.small import GENERAL, make_trainer, small_config

QUIET = {"gain": [], "retention": []}


def streams(strategy, tokenizer, make_model, **changes):
    trainer = make_trainer(small_config(strategy, evaluation=QUIET, **changes), make_model(0), tokenizer, World())
    return list(trainer.stream), trainer.corpus


def tokens_by_source(experience):
    batches = experience.batches
    amounts = [int(rows.tokens[batches.mixture.order(i)].sum()) for i, rows in enumerate(batches.rows)]
    return dict(zip(batches.mixture.sources, amounts, strict=True))


def test_replay_keeps_its_share_of_tokens(tokenizer, make_model):
    (first, second), corpus = streams(
        {"replay": {"ratio": 0.3, "from": [*GENERAL, "past"], "memory": 25}}, tokenizer, make_model
    )
    naive, _ = streams({}, tokenizer, make_model)
    for experience, plain, own in ((first, naive[0], "medical"), (second, naive[1], "exam")):
        tokens = tokens_by_source(experience)
        assert tokens[own] == tokens_by_source(plain)[own], "replay comes on top of the domain's budget"
        assert 1 - tokens[own] / sum(tokens.values()) == pytest.approx(
            0.3, abs=0.02
        )  # a row is 64 of some 10,000 tokens
    assert set(tokens_by_source(first)) == {"medical", *GENERAL}
    assert set(tokens_by_source(second)) == {"exam", "past", *GENERAL}
    memory = second.batches.rows[second.batches.mixture.sources.index("past")]
    assert len(memory) == 25
    of_past = {row.tobytes() for row in corpus.rows("medical").data["input_ids"][:]}
    assert {row.tobytes() for row in memory.data["input_ids"][:]} <= of_past


def test_replay_of_the_past_alone_starts_with_nothing(tokenizer, make_model):
    (first, second), _ = streams({"replay": {"ratio": 0.3, "from": ["past"]}}, tokenizer, make_model)
    assert set(tokens_by_source(first)) == {"medical"}
    assert set(tokens_by_source(second)) == {"exam", "past"}


def test_strategies_never_read_held_out_text(tokenizer, make_model):
    (first, _), corpus = streams({"replay": {"ratio": 0.3, "from": GENERAL}}, tokenizer, make_model)
    for name in GENERAL:
        source, path = corpus.sources[name], corpus.paths[name]
        held_out = set(document_texts(name, source, path, "heldout"))
        rows = first.batches.rows[first.batches.mixture.sources.index(name)]
        replayed = tokenizer.decode(np.concatenate(rows.data["input_ids"][:]))
        assert held_out and not any(text in replayed for text in held_out)
        assert any(text in replayed for text in document_texts(name, source, path, "train"))


def test_interleave_spreads_the_general_steps_evenly(tokenizer, make_model):
    (first, _), _ = streams({"interleave": {"every": 3, "from": GENERAL}}, tokenizer, make_model)
    mixture = first.batches.mixture
    general = mixture.counts[:, [mixture.sources.index(name) for name in GENERAL]].sum(axis=1)
    own = mixture.counts[:, mixture.sources.index("medical")]
    assert ((general > 0) != (own > 0)).all()
    assert np.abs(np.cumsum((general > 0) - 1 / 3)).max() < 1.5 and (general > 0).mean() == pytest.approx(
        1 / 3, abs=0.05
    )


def test_an_experience_on_general_text_needs_no_general_text_beside_it(tokenizer, make_model):
    stream = [{"name": "refresh", "data": ["english"], "tokens": 3000, "optimizer": {"lr": 1e-3}}]
    for strategy in ({"replay": {"ratio": 0.3, "from": GENERAL}}, {"interleave": {"from": GENERAL}}):
        (only,), _ = streams(strategy, tokenizer, make_model, stream=stream)
        assert set(tokens_by_source(only)) == {"english", "chinese"}
        assert only.batches.trained(domain_only=True)[-1] == pytest.approx(3000, abs=64)


def test_joint_is_one_experience_with_every_budget(tokenizer, make_model):
    (only,), corpus = streams({"joint": {"from": GENERAL, "general_epochs": 0.5}}, tokenizer, make_model)
    tokens = tokens_by_source(only)
    size = corpus.rows("medical").tokens.mean()
    assert tokens["medical"] == pytest.approx(8000, abs=size)
    assert tokens["exam"] == pytest.approx(4000, abs=64)
    for name in GENERAL:
        assert tokens[name] == pytest.approx(0.5 * corpus.rows(name).tokens.sum(), abs=64)
    assert only.batches.trained(domain_only=True)[-1] == tokens["medical"] + tokens["exam"]
    exact = only.batches.mixture.counts.sum(axis=1, keepdims=True) * only.batches.mixture.counts.sum(axis=0)
    exact = exact / only.batches.mixture.counts.sum()
    assert (np.abs(np.cumsum(only.batches.mixture.counts - exact, axis=0)) < 1 + 1e-9).all(), "not mixed evenly"


def test_joint_of_three_experiences_keeps_tokens_and_epochs_and_adds_up_a_source(tokenizer, make_model):
    optimizer = {"lr": 1e-3}
    stream = [
        {"name": "a", "data": ["medical"], "tokens": 3000, "optimizer": optimizer},
        {"name": "b", "data": ["exam", "medical"], "epochs": 0.5, "optimizer": optimizer},
        {"name": "c", "data": ["chinese"], "tokens": 2000, "optimizer": optimizer},
    ]
    (only,), corpus = streams({"joint": {}}, tokenizer, make_model, stream=stream)
    tokens = tokens_by_source(only)
    size = {name: float(corpus.rows(name).tokens.sum()) for name in tokens}
    assert only.name == "a+b+c"
    assert tokens == pytest.approx(
        {"medical": 3000 + size["medical"] / 2, "exam": size["exam"] / 2, "chinese": 2000}, abs=64
    )
    stream[1]["budget"] = "total"
    with pytest.raises(UserError, match="one budget"):
        streams({"joint": {}}, tokenizer, make_model, stream=stream)


def test_a_source_that_is_not_there_is_named(tokenizer, make_model):
    with pytest.raises(UserError, match="no source 'past'"):
        streams({"interleave": {"from": ["past"]}}, tokenizer, make_model)
