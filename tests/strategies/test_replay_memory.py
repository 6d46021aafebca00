"""Replay's memories of past experiences: how many rows of what, and which of them a model is surprised by."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from clmed.data.corpus import balanced, equal_shares
from clmed.errors import UserError
from clmed.strategy import make_strategies
from clmed.stream import make_scenario
from clmed.training.sharding import World
from tests.small import GENERAL, make_trainer, small_config

OPTIMIZER = {"lr": 1e-3, "warmup": 0.1}
THREE = [
    {"name": "one", "data": ["medical"], "tokens": 3000, "optimizer": OPTIMIZER},
    {"name": "two", "data": ["chinese", "medical"], "tokens": 2000, "optimizer": OPTIMIZER},
    {"name": "three", "data": ["exam"], "tokens": 2000, "optimizer": OPTIMIZER},
]
QUIET = {"gain": [], "retention": []}


def trainer_of(select, tokenizer, make_model, memory=20, stream=THREE):
    strategy = {"replay": {"ratio": 0.3, "from": ["past"], "memory": memory, "select": select}}
    config = small_config(strategy, stream=stream, evaluation=QUIET)
    return make_trainer(config, make_model(3), tokenizer, World())


def memory_of(experience):
    return experience.batches.rows[experience.batches.mixture.sources.index("past")]


def texts(rows):
    return [row.astype(np.int32).tobytes() for row in np.asarray(rows.data["input_ids"][:])]


@pytest.mark.parametrize("seed", range(100))
def test_equal_shares_are_those_of_dealing_row_by_row(seed):
    rng = np.random.default_rng(seed)
    rooms = rng.integers(0, 30, size=int(rng.integers(1, 7))).tolist()
    total = int(rng.integers(0, 120))
    dealt = [0] * len(rooms)
    for _ in range(min(total, sum(rooms))):
        dealt[min((share, index) for index, share in enumerate(dealt) if share < rooms[index])[1]] += 1
    assert equal_shares(total, rooms) == dealt


def test_a_balanced_memory_has_equally_many_rows_of_each_experience(tokenizer, make_model):
    trainer = trainer_of("balanced", tokenizer, make_model, memory=21)
    first, second, third = trainer.stream
    assert "past" not in first.batches.mixture.sources
    medical, chinese = (set(texts(trainer.corpus.rows(name))) for name in ("medical", "chinese"))
    assert len(memory_of(second)) == 21 and set(texts(memory_of(second))) <= medical
    found = texts(memory_of(third))
    # The second experience is the Chinese text alone: it did not bring the medical one into the past.
    assert (sum(text in medical for text in found), sum(text in chinese for text in found)) == (11, 10)
    assert {text for text in found if text in medical} <= set(texts(memory_of(second))), "rows came back"


def test_a_balanced_memory_is_the_same_where_the_last_experience_starts_from_another_run(tokenizer, make_model):
    whole = trainer_of("balanced", tokenizer, make_model, memory=21)
    config = small_config(
        {"replay": {"ratio": 0.3, "from": ["past"], "memory": 21, "select": "balanced"}},
        stream=THREE[2:],
        evaluation=QUIET,
    )
    scenario = make_scenario(
        config.stream,
        training=config.training,
        corpus=whole.corpus,
        strategies=make_strategies(config),
        seed=config.seed,
        past=(("medical",), ("chinese",)),
        before=2,
    )
    (branched,) = scenario.streams["train"]
    assert texts(memory_of(branched)) == texts(memory_of(whole.stream[2]))
    assert [branched.batches.mixture.step(t) for t in range(3)] == [
        whole.stream[2].batches.mixture.step(t) for t in range(3)
    ]


def test_a_balanced_memory_obeys_the_reservoir_law_in_each_experience(tokenizer, make_model):
    """Chi-square of how often each row is remembered over 200 seeds, for each experience."""
    corpus = trainer_of("balanced", tokenizer, make_model).corpus
    pools = [corpus.rows("exam").select(np.arange(40)), corpus.rows("chinese").select(np.arange(25))]
    for pool in pools:
        assert len(set(texts(pool))) == len(pool)
    counts = [dict.fromkeys(texts(pool), 0) for pool in pools]
    for seed in range(200):
        memory = balanced([{"exam": pools[0]}, {"chinese": pools[1]}], 20, seed)
        for text in texts(memory):
            for group in counts:
                if text in group:
                    group[text] += 1
    for group in counts:
        expected = 200 * 10 / len(group)
        statistic = sum((count - expected) ** 2 / expected for count in group.values()) / (1 - 10 / len(group))
        assert 0.001 < chi2.cdf(statistic, len(group) - 1) < 0.999


class Surprise:
    """When an experience begins: the mean loss of every past row, one at a time and by the definition."""

    supports_distributed = True

    def __init__(self):
        self.memories = {}

    def before_training_exp(self, trainer, **kwargs):
        phase = trainer.experience.phase
        losses = {}
        for name in phase.past:
            for row in trainer.corpus.rows(name).data:
                ids, places, labels = (
                    torch.tensor(row[key])[None].long() for key in ("input_ids", "position_ids", "labels")
                )
                with torch.no_grad():
                    logs = trainer.model.eval()(input_ids=ids, position_ids=places, use_cache=False).logits.log_softmax(
                        -1
                    )
                trainer.model.train()
                taught = labels[0, 1:] >= 0
                nats = -logs[0, :-1].gather(1, ids[0, 1:, None])[taught]
                losses[ids.numpy().astype(np.int32).tobytes()] = nats.mean().item()
        if losses:
            self.memories[phase.index] = losses, texts(memory_of(trainer.experience))


def test_surprise_remembers_the_rows_of_highest_mean_loss(tokenizer, make_model):
    trainer = trainer_of("surprise", tokenizer, make_model)
    before = [set(texts(memory_of(experience))) for experience in trainer.stream[1:]]
    trainer.plugins.insert(0, look := Surprise())
    trainer.train(trainer.stream)
    assert list(look.memories) == [1, 2]
    for stand_in, (losses, memory) in zip(before, look.memories.values(), strict=True):
        worst = sorted(losses, key=lambda text: -losses[text])[:20]
        assert set(memory) == set(worst) != stand_in
    assert look.memories[1][1] != look.memories[2][1]


def test_what_is_read_for_it_is_in_the_flops(tokenizer, make_model):
    random, surprise = (trainer_of(select, tokenizer, make_model) for select in ("reservoir", "surprise"))
    for trainer in (random, surprise):
        trainer.train(trainer.stream)
    medical, chinese = (len(surprise.corpus.rows(name)) for name in ("medical", "chinese"))
    read = (medical + medical + chinese) * 64 * surprise.flops_per_token / 3
    assert surprise.flops - random.flops == pytest.approx(read)


def test_a_memory_larger_than_the_past_is_all_of_it(tokenizer, make_model):
    for select in ("reservoir", "balanced", "surprise"):
        trainer = trainer_of(select, tokenizer, make_model, memory=100_000, stream=THREE[:2])
        trainer.train(trainer.stream)
        assert sorted(texts(memory_of(trainer.stream[1]))) == sorted(texts(trainer.corpus.rows("medical")))


@pytest.mark.parametrize("select", ["balanced", "surprise"])
def test_choosing_from_a_past_that_is_not_replayed_is_refused(select):
    with pytest.raises(UserError, match="`from` must name `past`"):
        make_strategies(small_config({"replay": {"from": GENERAL, "select": select}}))
