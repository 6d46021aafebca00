"""Which rows make up each optimizer step: a pure function of (seed, position), so resuming is one integer.

A `Blend` says what an experience trains on: its own (domain) tokens by source, and what strategies add, as shares.
`schedule` turns it into a `Mixture`: how many rows of each source every step takes. `Mixture.step(t)` names them, in
O(1) of t and whatever the number of ranks.

Shares are exact to one row: for every source, in every step and at every prefix of the experience, the
number of rows is the exact share rounded up or down. That is the P-fair scheduling problem (Baruah, Cohen, Plaxton and
Varvel, "Proportionate progress", Algorithmica 15, 1996): steps are time slots and sources are tasks that must never
be a whole row ahead or behind. (With two sources it holds in every run of steps, wherever it starts; with three or
more no sequence can do that for all shares.) Each pass over a source is a fresh permutation of its rows.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from clmed.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Blend:
    """What one experience trains on, in tokens and shares.

    domain: tokens of each of the experience's own sources (its budget).
    mixed: share of all tokens for each source that is mixed into the steps (replay).
    alternated: share of all optimizer steps for each source, or group of them, that gets whole steps (interleaving).
    priority: of the alternated steps over the others: above 1 they come rather early, below 1 late (see `owners`).
    budget: "domain" adds the shares on top of the domain tokens, "total" lets them displace domain tokens.
    """

    domain: Mapping[str, float]
    mixed: Mapping[str, float]
    alternated: Mapping[str, float]
    priority: float = 1.0
    budget: str = "domain"

    def add(
        self,
        *,
        mixed: Mapping[str, float] | None = None,
        alternated: Mapping[str, float] | None = None,
        priority: float = 1.0,
    ) -> "Blend":
        """This blend with further shares; the domain keeps what they leave. priority: of the `alternated` ones."""
        roles = [self.domain, self.mixed, self.alternated]
        for index, names in ((1, mixed or {}), (2, alternated or {})):
            for name in names:
                if any(name in role for other, role in enumerate(roles) if other != index):
                    raise UserError(
                        f"The source {name!r} would have two parts in one experience (its own data, mixed into the "
                        "steps, steps of its own). Give each strategy sources of its own, or use one of them."
                    )
        if self.alternated and alternated and priority != self.priority:
            raise UserError(
                f"Two strategies give whole steps to sources, one with the priority {self.priority:g} and one with "
                f"{priority:g}; there is one order of the steps, so give both the same priority."
            )
        blend = replace(
            self,
            priority=priority if alternated else self.priority,
            mixed=_sum(self.mixed, mixed or {}),
            alternated=_sum(self.alternated, alternated or {}),
        )
        added = {**blend.mixed, **blend.alternated}
        if sum(blend.mixed.values()) + sum(blend.alternated.values()) >= 1 or min(added.values(), default=0) < 0:
            raise UserError(
                f"The shares of added sources ({', '.join(f'{name} {share:g}' for name, share in added.items())}) must "
                "be at least 0 and leave something for the experience's own data: their sum must stay below 1."
            )
        return blend

    def tokens(self) -> dict[str, float]:
        """Tokens to train from each source (of alternated ones about so many: what counts there are steps)."""
        shares = _sum(self.mixed, self.alternated)
        rest = 1 - sum(shares.values())
        budget = sum(self.domain.values())
        total = budget / rest if self.budget == "domain" else budget
        kept = total * rest / budget
        return _sum(
            {name: tokens * kept for name, tokens in self.domain.items()}, {n: s * total for n, s in shares.items()}
        )


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The rows of every optimizer step of one experience.

    counts: (steps, sources) rows that a step takes from each source; shares: (sources,) share of the loss;
    sizes: rows that each source holds; domain: which sources are the experience's own.
    """

    sources: tuple[str, ...]
    counts: np.ndarray
    shares: np.ndarray
    sizes: tuple[int, ...]
    domain: tuple[bool, ...]
    seed: int

    @property
    def steps(self) -> int:
        return len(self.counts)

    @cached_property
    def before(self) -> np.ndarray:
        """(steps + 1, sources) rows taken from each source before step t."""
        return np.vstack([np.zeros_like(self.counts[:1]), np.cumsum(self.counts, axis=0)])

    def part_of_rows(self, names: Collection[str]) -> float:
        """What part of the experience's rows are of these sources."""
        own = [name in names for name in self.sources]
        return float(self.counts[:, own].sum() / self.counts.sum())

    def step(self, t: int) -> list[tuple[int, int]]:
        """The (source index, row) pairs of step `t`, in the order of the sources."""
        pairs = []
        for source, size in enumerate(self.sizes):
            for position in range(self.before[t, source], self.before[t + 1, source]):
                turn, offset = divmod(int(position), size)
                pairs.append((source, int(_permutation(self.seed, self.sources[source], turn, size)[offset])))
        return pairs

    def order(self, source: int) -> np.ndarray:
        """All rows taken from a source, in the order of training."""
        size, taken = self.sizes[source], int(self.before[-1, source])
        turns = [_permutation(self.seed, self.sources[source], turn, size) for turn in range(-(-taken // size))]
        return np.concatenate([np.zeros(0, dtype=np.int64), *turns])[:taken]


@lru_cache(maxsize=256)
def _permutation(seed: int, source: str, turn: int, size: int) -> np.ndarray:
    """The order of a source's rows in its `turn`-th pass."""
    return np.random.default_rng([seed, turn, *source.encode()]).permutation(size)


def schedule(
    blend: Blend, *, rows: Mapping[str, int], tokens_per_row: Mapping[str, float], rows_per_step: int, seed: int
) -> Mixture:
    """The mixture that trains a blend.

    rows: rows held by each source; tokens_per_row: their mean number of tokens (shares are of tokens, and rows of
    fine-tuning examples are not quite full). The last step may be shorter; every other has `rows_per_step` rows.
    """
    tokens = blend.tokens()
    sources = tuple(name for name, amount in tokens.items() if amount > 0)
    wanted = np.array([max(1, round(tokens[name] / tokens_per_row[name])) for name in sources])
    apart = np.array([name in blend.alternated and name not in blend.domain for name in sources])
    groups = [np.flatnonzero(~apart), *([np.flatnonzero(apart)] if apart.any() else [])]
    if apart.any():
        share = sum(blend.alternated.values())
        steps = -(-wanted[~apart].sum() // rows_per_step)
        wanted[apart] = apportion(max(1, round(steps * share / (1 - share))) * rows_per_step, wanted[apart])
    parts = [spread(wanted[group], rows_per_step) for group in groups]
    counts = np.zeros((sum(map(len, parts)), len(sources)), dtype=np.int64)
    # The domain's last, shorter step stays the last of its group wherever it falls.
    owner = owners([len(part) for part in parts], blend.priority)
    for index, (group, part) in enumerate(zip(groups, parts, strict=True)):
        counts[np.ix_(owner == index, group)] = part
    amounts = np.array([tokens[name] for name in sources])
    return Mixture(
        sources=sources,
        counts=counts,
        shares=amounts / amounts.sum(),
        sizes=tuple(rows[name] for name in sources),
        domain=tuple(name in blend.domain for name in sources),
        seed=seed,
    )


def spread(totals: Sequence[int] | np.ndarray, per_step: int) -> np.ndarray:
    """Deal `totals[i]` rows of each source over steps of `per_step` rows; returns counts of shape (steps, sources).

    Every count, and every running total, is the exact share rounded up or down. Whole parts are dealt at once;
    for the fractions f = n/N, the j-th extra row of a source may come from step floor((j-1)/f) on and must come
    before step ceil(j/f); earliest deadline first, at equal deadlines the source whose next row's window
    overlaps (it has less room). All in integers: no rounding error however long the experience.
    """
    amounts = [int(total) for total in totals]
    everything = sum(amounts)
    full = everything // per_step
    whole = [per_step * amount // everything for amount in amounts]
    parts = [per_step * amount % everything for amount in amounts]  # fractions, in units of 1/everything
    extra_rows = per_step - sum(whole)
    dealt = [0] * len(amounts)
    counts = np.tile(np.array(whole, dtype=np.int64), (full, 1))
    for t in range(full if extra_rows else 0):
        open_windows = []
        for source, part in enumerate(parts):
            if part and dealt[source] * everything < part * (t + 1):  # released: floor(dealt / f) <= t
                following = (dealt[source] + 1) * everything
                open_windows.append((-(-following // part), following % part == 0, -part, source))
        for *_, source in sorted(open_windows)[:extra_rows]:
            dealt[source] += 1
            counts[t, source] += 1
    rest = np.array(amounts, dtype=np.int64) - counts.sum(axis=0)
    return np.vstack([counts, rest]) if rest.any() else counts


def owners(steps: Sequence[int], priority: float) -> np.ndarray:
    """Which group each step belongs to, of `steps[i]` in group i: 0 for the domain's, 1 for the alternated.

    With priority 1 that is `spread` once more: one "row" a slot, groups as sources. Else it is sampling without
    replacement by priority (HuatuoGPT-II, arXiv 2311.09774) without its chance: there the next step is one of group 1
    with the probability p g / (p g + d), where g and d are the steps left of each and p is the priority. In the mean g
    falls as G e^(-p u) while d falls as D e^(-u), so that after t steps (t = G (1 - e^(-p u)) + D (1 - e^(-u)) gives
    u) group 1 has had G (1 - e^(-p u)): here exactly that, rounded, at every t.
    """
    if len(steps) == 1 or priority == 1:
        return spread(steps, 1).argmax(axis=1)
    domain, other = steps
    place = np.arange(domain + other)
    # Bisection for log u: u itself and p u lie many powers of ten apart where p is very small or very large.
    low = np.full(len(place), -50.0 - max(0.0, math.log(priority)))
    high = np.full(len(place), 10.0 - min(0.0, math.log(priority)))
    for _ in range(100):
        middle = (low + high) / 2
        early = _gone(other, middle + math.log(priority)) + _gone(domain, middle) < place
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    had = np.append(np.floor(_gone(other, low + math.log(priority)) + 0.5), other)
    return np.diff(had).astype(np.int64)


def _gone(amount: int, log_time: np.ndarray) -> np.ndarray:
    """amount * (1 - e^(-u)) for log u."""
    return -amount * np.expm1(-np.exp(np.minimum(log_time, 10.0)))


def apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to `weights` that sum to `total` (largest remainders)."""
    exact = total * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def share_out(ratio: float, sizes: Mapping[str, float]) -> dict[str, float]:
    """`ratio` of all tokens shared out over sources in proportion to their sizes."""
    total = sum(sizes.values())
    return {name: ratio * size / total for name, size in sizes.items()}


def _sum(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in [*left, *(n for n in right if n not in left)]}
