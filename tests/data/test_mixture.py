"""The mixture: shares exact to one row, every row once a pass, the same whatever the order of asking."""

import numpy as np
import pytest

from clmed.data.mixture import Blend, Mixture, schedule, share_out, spread
from clmed.errors import UserError


def blend(domain=None, **shares) -> Blend:
    return Blend(domain=domain or {"own": 64_000.0}, mixed={}, alternated={}).add(**shares)


def make(blend_: Blend, rows_per_step: int = 8, rows: int = 100, tokens_per_row: dict | None = None) -> Mixture:
    names = blend_.tokens()
    return schedule(
        blend_,
        rows=dict.fromkeys(names, rows),
        tokens_per_row={name: (tokens_per_row or {}).get(name, 64.0) for name in names},
        rows_per_step=rows_per_step,
        seed=3,
    )


@pytest.mark.parametrize("seed", range(300))
def test_shares_are_exact_to_one_row_in_every_step_and_prefix(seed):
    rng = np.random.default_rng(seed)
    sources, per_step = int(rng.integers(1, 7)), int(rng.integers(1, 40))
    totals = np.ceil(rng.dirichlet(np.full(sources, 0.5)) * rng.integers(10, 3000)).astype(int)
    counts = spread(totals, per_step)
    exact = counts.sum(axis=1, keepdims=True) * totals / totals.sum()
    assert (counts.sum(axis=0) == totals).all() and (counts >= 0).all()
    assert (counts.sum(axis=1)[:-1] == per_step).all() and counts[-1].sum() <= per_step
    assert (np.abs(counts - exact)[:-1] < 1).all(), "a step is more than a row off"
    assert (np.abs(np.cumsum(counts - exact, axis=0)) < 1 + 1e-9).all(), "a prefix is more than a row off"


@pytest.mark.parametrize("seed", range(100))
def test_two_sources_are_exact_to_one_row_in_every_window_of_steps(seed):
    rng = np.random.default_rng(seed)
    totals = rng.integers(1, 500, size=2)
    counts = spread(totals, int(rng.integers(1, 12)))
    ahead = np.concatenate([[0], np.cumsum(counts[:, 0] - counts.sum(axis=1) * totals[0] / totals.sum())])
    assert ahead.max() - ahead.min() < 1 + 1e-9  # the worst window from any step to any other


def test_replay_comes_on_top_of_the_domain_budget():
    mixture = make(blend(mixed={"general": 0.25}))
    rows = dict(zip(mixture.sources, mixture.counts.sum(axis=0), strict=True))
    assert rows == {"own": 1000, "general": 333}  # 64,000 domain tokens; 1/4 of all 85,333


def test_total_budget_lets_replay_displace_the_domain():
    whole = Blend(domain={"own": 64_000.0}, mixed={}, alternated={}, budget="total").add(mixed={"general": 0.25})
    rows = dict(zip(whole.tokens(), make(whole).counts.sum(axis=0), strict=True))
    assert rows == {"own": 750, "general": 250}


def test_shares_count_tokens_not_rows():
    mixture = make(blend(mixed={"half-empty": 0.2}), tokens_per_row={"own": 64, "half-empty": 32})
    own, other = mixture.counts.sum(axis=0)
    assert other * 32 / (own * 64 + other * 32) == pytest.approx(0.2, abs=32 / 80_000)


def test_interleaved_steps_hold_one_kind_and_are_spread_evenly():
    mixture = make(blend(alternated={"general": 0.25}))
    general = mixture.counts[:, mixture.sources.index("general")]
    own = mixture.counts[:, mixture.sources.index("own")]
    assert ((general == 0) | (own == 0)).all()
    steps = general > 0
    assert steps.sum() == 42 and len(steps) == 167  # 125 steps of the domain: 42 are a quarter of all
    assert (general[steps] == 8).all(), "a general step is a whole one"
    ahead = np.cumsum(steps - steps.mean())
    assert np.abs(ahead).max() < 1


def test_every_pass_takes_every_row_once_in_a_new_order():
    mixture = make(blend(domain={"own": 64.0 * 300}))
    order = mixture.order(0).reshape(3, 100)
    assert (np.sort(order, axis=1) == np.arange(100)).all()
    assert not (order[0] == order[1]).all() and not (order[1] == order[2]).all()


def test_a_step_is_a_function_of_its_number():
    forwards, backwards = make(blend(mixed={"general": 0.3})), make(blend(mixed={"general": 0.3}))
    steps = [forwards.step(t) for t in range(forwards.steps)]
    assert [backwards.step(t) for t in reversed(range(backwards.steps))] == steps[::-1]
    taken = [row for step in steps for source, row in step if source == 0]
    assert taken == forwards.order(0).tolist()


def test_budget_of_fewer_rows_than_a_step_is_not_overrun():
    mixture = make(blend(domain={"own": 64.0 * 10}), rows_per_step=32, rows=10)
    assert mixture.counts.tolist() == [[10]]


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1])
def test_impossible_shares_are_refused(share):
    with pytest.raises(UserError, match="below 1"):
        blend(mixed={"general": share})


def test_strategies_compose():
    both = blend(mixed={"a": 0.1}).add(alternated={"b": 0.2})
    tokens = both.tokens()
    assert {name: tokens[name] / sum(tokens.values()) for name in "ab"} == pytest.approx({"a": 0.1, "b": 0.2})
    assert tokens["own"] == pytest.approx(64_000)
    mixture = make(both)
    taken = dict(zip(mixture.sources, mixture.counts.sum(axis=0) / mixture.counts.sum(), strict=True))
    assert taken == pytest.approx({"own": 0.7, "a": 0.1, "b": 0.2}, abs=0.01)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"mixed": {"g": 0.1}}, {"alternated": {"g": 0.1}}),
        ({"alternated": {"g": 0.1}}, {"mixed": {"g": 0.1}}),
        ({}, {"mixed": {"own": 0.1}}),
        ({}, {"alternated": {"own": 0.1}}),
    ],
)
def test_a_source_has_one_part(first, second):
    with pytest.raises(UserError, match="two parts in one experience"):
        blend(**first).add(**second)


def test_share_out_is_by_size():
    assert share_out(0.2, {"a": 300, "b": 100}) == pytest.approx({"a": 0.15, "b": 0.05})
