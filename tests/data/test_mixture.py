"""The mixture: shares exact to one row, every row once a pass, the same whatever the order of asking."""

import numpy as np
import pytest
from scipy.optimize import brentq

from clmed.data.mixture import Blend, Mixture, owners, schedule, share_out, spread
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


@pytest.mark.parametrize("priority", [16.0, 2.0, 1.0 + 1e-9, 0.25])
@pytest.mark.parametrize(("domain", "other"), [(90, 30), (7, 50), (1, 1)])
def test_priority_is_sampling_without_replacement_in_the_mean(domain, other, priority):
    """Against the root of the formula, and against the mean of 4,000 runs of HuatuoGPT-II's own sampler."""
    owner = owners([domain, other], priority)
    assert set(owner) <= {0, 1} and (owner.sum(), len(owner)) == (other, domain + other)
    had = np.concatenate([[0], np.cumsum(owner)])

    def time(u):
        return other * (1 - np.exp(-priority * u)) + domain * (1 - np.exp(-u))

    for t in range(1, domain + other):
        u = brentq(lambda u, t=t: time(u) - t, 0, 700)
        assert abs(had[t] - other * (1 - np.exp(-priority * u))) < 0.5 + 1e-6

    weights = np.repeat([1.0, priority], [domain, other])
    # Drawing one after the other by weight is sorting by exponential waiting times (Efraimidis and Spirakis, 2006).
    waits = np.random.default_rng(0).exponential(size=(4000, len(weights))) / weights
    drawn = np.cumsum(np.argsort(waits, axis=1) >= domain, axis=1).mean(axis=0)
    assert np.abs(had[1:] - drawn).max() < 1.1, "half a step of rounding, and what is lost between mean and most likely"


@pytest.mark.parametrize("priority", [5e-324, 1e-30, 1e-3, 0.01, 0.1, 1 - 1e-12, 40.0, 1e6, 1e30, 1e300])
@pytest.mark.parametrize("seed", range(8))
def test_any_priority_keeps_the_number_of_steps_and_their_order(seed, priority):
    """Each step has one owner; a low priority lets the domain's steps come first, a high one the general ones."""
    sizes = np.random.default_rng(seed).integers(1, 4 ** np.arange(1, 8, 3)[seed % 3] + 1, size=2).tolist()
    owner = owners(sizes, priority)
    assert set(owner) <= {0, 1} and (owner.sum(), len(owner)) == (sizes[1], sum(sizes))
    even = np.cumsum(owners(sizes, 1.0))
    ahead = np.cumsum(owner) - even
    assert (ahead >= -1).all() if priority > 1 else (ahead <= 1).all()
    if priority in (5e-324, 1e300):
        assert (np.sort(owner) == (owner if priority < 1 else owner[::-1])).all()


def test_priority_moves_general_steps_and_changes_nothing_else():
    even, early = (make(blend(alternated={"a": 0.1, "b": 0.15}, priority=priority)) for priority in (1.0, 4.0))
    assert even.sources == early.sources and (even.counts.sum(axis=0) == early.counts.sum(axis=0)).all()
    for mixture in (even, early):
        own = mixture.counts[:, mixture.sources.index("own")] > 0
        general = mixture.counts[:, 1:].sum(axis=1)
        assert ((general > 0) != own).all() and set(general[~own]) == {8}
        general = mixture.counts[~own, 1:]
        exact = np.outer(np.arange(1, len(general) + 1) * 8, general.sum(axis=0) / general.sum())
        assert (np.abs(np.cumsum(general, axis=0) - exact) < 1 + 1e-9).all(), "the general sources' shares"
        assert [pair for step in map(mixture.step, range(mixture.steps)) for pair in step if pair[0] == 0] == [
            (0, row) for row in mixture.order(0)
        ]
    thirds = [np.array_split(mixture.counts[:, 1:].sum(axis=1) > 0, 3) for mixture in (even, early)]
    (a, _, c), (first, _, third) = ([part.mean() for part in parts] for parts in thirds)
    assert a == pytest.approx(c, abs=0.03) and first > 1.5 * a and third < 0.5 * a


def test_one_order_of_steps_has_one_priority():
    both = blend(alternated={"a": 0.1}, priority=2.0).add(alternated={"b": 0.1}, priority=2.0)
    assert both.priority == 2.0 and both.add(mixed={"c": 0.1}).priority == 2.0
    with pytest.raises(UserError, match="the priority 2 and one with 1"):
        blend(alternated={"a": 0.1}, priority=2.0).add(alternated={"b": 0.1})


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


@pytest.mark.parametrize("seed", range(100))
def test_random_mixtures_keep_every_budget_and_share(seed):
    """Replay and interleaving together, budgets that they displace or not, half-empty rows, any priority."""
    rng = np.random.default_rng(seed)
    names = [
        [f"{role}{i}" for i in range(rng.integers(least, 4))] for role, least in (("own", 1), ("mix", 0), ("alt", 0))
    ]
    domain = {name: float(rng.integers(20_000, 80_000)) for name in names[0]}
    mixed, alternated = ({name: float(rng.uniform(0.02, 0.15)) for name in role} for role in names[1:])
    per_row = {name: float(rng.uniform(20, 64)) for role in names for name in role}
    budget, per_step = str(rng.choice(["domain", "total"])), int(rng.integers(2, 12))
    made = Blend(domain=domain, mixed={}, alternated={}, budget=budget).add(mixed=mixed)
    made = made.add(alternated=alternated, priority=float(rng.choice([0.5, 1.0, 3.0])))
    mixture = make(made, rows_per_step=per_step, tokens_per_row=per_row)

    added = sum(mixed.values()) + sum(alternated.values())
    whole = sum(domain.values()) / (1 - added) if budget == "domain" else sum(domain.values())
    kept = 1.0 if budget == "domain" else 1 - added
    exact = {name: tokens * kept for name, tokens in domain.items()} | {name: s * whole for name, s in mixed.items()}
    of = mixture.sources.index
    taken = mixture.counts.sum(axis=0)
    for name, tokens in exact.items():
        assert abs(taken[of(name)] * per_row[name] - tokens) <= per_row[name] / 2, name

    apart = mixture.counts[:, [of(name) for name in alternated]].sum(axis=1)
    together = mixture.counts[:, [of(name) for name in exact]]
    assert ((apart > 0) != (together.sum(axis=1) > 0)).all() and set(apart) <= {0, per_step}
    if alternated:
        share = sum(alternated.values())
        steps = (apart == 0).sum()
        assert abs((apart > 0).sum() - steps * share / (1 - share)) <= 0.5
        for name, own in alternated.items():
            wanted = own * whole / per_row[name]
            others = sum(s * whole / per_row[other] for other, s in alternated.items())
            assert abs(taken[of(name)] - apart.sum() * wanted / others) <= 1.5, name  # rows rounded, then shared out
    steps = together[apart == 0]
    share = steps.sum(axis=1, keepdims=True) * steps.sum(axis=0) / steps.sum()
    assert (np.abs(np.cumsum(steps - share, axis=0)) < 1 + 1e-9).all()


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
