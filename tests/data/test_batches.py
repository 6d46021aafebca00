"""Batches: the same global batch for any number of ranks, and row weights that make the loss what the docs say."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from clmed.data.batches import IGNORED, Batches
from clmed.data.corpus import Rows, reservoir
from clmed.data.mixture import Blend, schedule
from clmed.training.loss import row_losses

LENGTH = 8


def rows(first: int, count: int, supervised: int) -> Rows:
    """Rows whose input_ids are all first, first + 1, ...; the last `supervised` positions carry a loss."""
    ids = np.repeat(np.arange(first, first + count)[:, None], LENGTH, axis=1)
    labels = np.where(np.arange(LENGTH) >= LENGTH - supervised, ids, IGNORED)
    columns = {"input_ids": ids, "position_ids": np.tile(np.arange(LENGTH), (count, 1)), "labels": labels}
    columns |= {"weights": (labels != IGNORED).astype(np.float32), "mass": np.full(count, float(supervised))}
    columns |= {"tokens": np.full(count, LENGTH), "supervised": np.full(count, supervised), "bytes": np.full(count, 20)}
    return Rows.of(Dataset.from_dict({key: value.tolist() for key, value in columns.items()}).with_format("numpy"))


@pytest.fixture(scope="module")
def sources():
    return {"own": rows(100, 30, 1), "general": rows(200, 30, 7)}


def batches(sources, weighting="share", micro=4, rank=0, ranks=1) -> Batches:
    blend = Blend(domain={"own": 30.0 * LENGTH}, mixed={}, alternated={}).add(mixed={"general": 0.25})
    mixture = schedule(
        blend, rows=dict.fromkeys(sources, 30), tokens_per_row=dict.fromkeys(sources, LENGTH), rows_per_step=8, seed=0
    )
    return Batches(mixture=mixture, rows=sources, weighting=weighting, micro_batch_size=micro, rank=rank, ranks=ranks)


def contents(windows) -> dict[tuple[int, int], int]:
    """How often a (row, weight) stands in some micro-batches; empty rows left out."""
    found: dict = {}
    for micro in windows:
        for row, weight in zip(micro["input_ids"][:, 0].tolist(), micro["weight"].tolist(), strict=True):
            if weight:
                found[row, weight] = found.get((row, weight), 0) + 1
    return found


@pytest.mark.parametrize("ranks", [2, 3, 5, 16])
@pytest.mark.parametrize("micro", [1, 4, 64])
def test_global_batch_does_not_depend_on_ranks_or_micro_batch(sources, ranks, micro):
    one = batches(sources)
    many = [batches(sources, micro=micro, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert len({b.accumulation for b in many}) == 1
    for t in range(len(one)):
        assert contents([m for b in many for m in b[t]]) == contents(one[t])


def test_sources_weigh_by_share_not_by_supervised_tokens(sources):
    """Own rows have 1 supervised token, general rows 7: by share they weigh 3 to 1 all the same."""
    step = batches(sources)
    pairs = step.mixture.step(0)
    parts = np.zeros(2)
    for (source, row), weight in zip(pairs, step.weights(pairs), strict=True):
        parts[source] += weight * step.rows[source].supervised[row]
    assert parts == pytest.approx([0.75, 0.25], abs=1e-2)  # the share of 10 of 40 rows

    by_tokens = batches(sources, weighting="tokens").weights(pairs)
    supervised = sum(step.rows[source].supervised[row] for source, row in pairs)
    assert by_tokens == pytest.approx(1 / supervised)


@pytest.mark.parametrize("rows_per_step", [2, 4, 8, 40])
@pytest.mark.parametrize("added", [{"mixed": {"general": 0.05}}, {"alternated": {"general": 0.25}}])
def test_a_source_weighs_its_share_over_the_experience(rows_per_step, added):
    """Also where it has a row in one step of ten: the sum of its weights over all steps is its share of them."""
    sources = {"own": rows(100, 30, 3), "general": rows(200, 30, 7)}
    blend = Blend(domain={"own": 600.0 * LENGTH}, mixed={}, alternated={}).add(**added)
    mixture = schedule(
        blend,
        rows=dict.fromkeys(sources, 30),
        tokens_per_row=dict.fromkeys(sources, LENGTH),
        rows_per_step=rows_per_step,
        seed=0,
    )
    made = Batches(mixture=mixture, rows=sources, weighting="share", micro_batch_size=4)
    weight = np.zeros((mixture.steps, 2))
    for t in range(mixture.steps):
        pairs = mixture.step(t)
        for (source, row), per_token in zip(pairs, made.weights(pairs), strict=True):
            weight[t, source] += per_token * made.rows[source].supervised[row]
    rows_of_step = mixture.counts.sum(axis=1, keepdims=True)
    assert (weight * rows_of_step).sum(axis=0) / rows_of_step.sum() == pytest.approx(mixture.shares)
    assert weight.sum(axis=1).mean() == pytest.approx(1, abs=0.01)


def test_counts_of_what_was_trained(sources):
    step = batches(sources)
    assert step.trained(domain_only=True)[-1] == 30 * LENGTH
    assert step.trained()[-1] == 40 * LENGTH
    assert step.trained(of="bytes")[-1] == 40 * 20
    by_hand = [sum(step.rows[s].tokens[r] for t in range(n) for s, r in step.mixture.step(t)) for n in range(len(step))]
    assert step.trained()[:-1].tolist() == by_hand


def test_left_over_slots_are_empty_rows(sources):
    last = batches(sources, micro=3)[len(batches(sources)) - 1]
    empty = torch.cat([micro["weight"] for micro in last]) == 0
    labels = torch.cat([micro["labels"] for micro in last])
    assert empty.any() and (labels[empty] == IGNORED).all()


def test_reservoir_is_uniform_and_grows_like_one(sources):
    """Each of 60 rows must be among 12 with probability 1/5: chi-square over 400 seeds, 59 degrees of freedom."""
    from scipy.stats import chi2

    found = np.zeros(60)
    for seed in range(400):
        memory = reservoir(sources, 12, seed)
        ids = np.asarray(memory.data["input_ids"][:])[:, 0]
        assert len(memory) == 12
        found[np.where(ids < 200, ids - 100, ids - 200 + 30)] += 1
    # Drawn without replacement: the variance of a count is n p (1 - p), so the statistic is divided by (1 - p).
    statistic = ((found - 80) ** 2 / 80).sum() / (1 - 12 / 60)
    assert 0.001 < chi2.cdf(statistic, 59) < 0.999

    before = reservoir({"own": sources["own"]}, 12, 5)
    after = reservoir(sources, 12, 5)
    kept = set(np.asarray(after.data["input_ids"][:])[:, 0]) & set(range(100, 130))
    assert kept <= set(np.asarray(before.data["input_ids"][:])[:, 0]), "a row of the past came back into the memory"


def weighted_rows(seed: int, count: int) -> Rows:
    """Rows with a random mask, and random weights of the tokens that count."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 50, (count, LENGTH))
    weights = (generator.integers(0, 4, (count, LENGTH)) * generator.choice([1, 7.5], (count, LENGTH))).astype(
        "float32"
    )
    weights[:, 0] = 0
    columns = {"input_ids": ids, "position_ids": np.tile(np.arange(LENGTH), (count, 1)), "weights": weights}
    columns |= {"labels": np.where(weights > 0, ids, IGNORED), "tokens": np.full(count, LENGTH)}
    columns |= {"supervised": (weights > 0).sum(axis=1), "mass": weights.sum(axis=1, dtype=np.float64)}
    columns |= {"bytes": np.full(count, 20)}
    return Rows.of(Dataset.from_dict({key: value.tolist() for key, value in columns.items()}).with_format("numpy"))


@pytest.mark.parametrize("weighting", ["share", "tokens"])
@pytest.mark.parametrize(("micro", "ranks"), [(8, 1), (2, 1), (3, 2), (1, 4)])
def test_the_loss_is_the_weighted_mean_of_the_whole_step(weighting, micro, ranks):
    """Against the definition, token by token: sum of w x loss over sum of w, over all micro-batches and ranks."""
    sources = {"own": weighted_rows(1, 30), "general": weighted_rows(2, 30)}
    table = torch.randn(50, 50, generator=torch.Generator().manual_seed(0))  # a model of bigrams
    every = [batches(sources, weighting=weighting, micro=micro, rank=rank, ranks=ranks) for rank in range(ranks)]
    step = every[0]
    for t in (0, len(step) - 1):
        found = 0.0
        for micro_batch in (each for one in every for each in one[t]):
            losses = row_losses(table[micro_batch["input_ids"]], micro_batch["labels"], micro_batch["weights"])
            found += float((losses * micro_batch["weight"]).sum())
        sums = np.zeros((2, 2))
        for source, row in step.mixture.step(t):
            data = step.rows[source].data[row]
            for place in range(1, LENGTH):
                before, token = int(data["input_ids"][place - 1]), int(data["input_ids"][place])
                loss = float(torch.logsumexp(table[before], 0) - table[before, token])
                sums[source] += np.array([loss, 1]) * float(data["weights"][place])
        of_rows = np.bincount([source for source, _ in step.mixture.step(t)], minlength=2)
        overall = step.mixture.counts.sum(axis=0) / step.mixture.counts.sum()
        parts = step.mixture.shares * (of_rows / of_rows.sum()) / overall
        by_share = sum(part * nats / mass for part, (nats, mass) in zip(parts, sums, strict=True) if mass)
        expected = by_share if weighting == "share" else sums[:, 0].sum() / sums[:, 1].sum()
        assert found == pytest.approx(expected, rel=1e-5)
