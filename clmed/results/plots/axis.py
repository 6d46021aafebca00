"""Geometry of a figure: the axis of trained tokens, and labels that do not overlap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clmed.results.table import tokens_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 0.03


@dataclass(frozen=True, kw_only=True)
class TokenAxis:
    """The x axis, linear in domain tokens unless an experience would vanish.

    A fine-tuning of 10M tokens after a pretraining of 2B would be a vertical stroke. When an experience has less than
    half of the share `LEAST` of the axis, the axis gets one linear scale per experience, each about `LEAST` at least.
    `ends`: tokens at the end of each experience, rising.
    """

    ends: tuple[int, ...]

    LEAST = 0.2

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens at the ends of the experiences and their places on the axis, 0 to 1."""
        passed = [end for end in dict.fromkeys(self.ends) if end > 0]
        tokens = np.array([0, *(passed or [1])], dtype=float)
        shares = np.diff(tokens) / tokens[-1]
        least = min(self.LEAST, 0.6 / len(shares))
        if shares.min() < least / 2:
            shares = np.maximum(shares, least)
        return tokens, np.concatenate([[0], np.cumsum(shares / shares.sum())])

    @property
    def stretched(self) -> bool:
        tokens, places = self._knots
        return not np.allclose(tokens / tokens[-1], places)

    @property
    def boundaries(self) -> list[float]:
        """Tokens between one experience and the next."""
        return list(self._knots[0][1:-1])

    def fraction(self, tokens: float) -> float:
        """Where `tokens` lie between the left (0) and the right (1) edge of the panel."""
        return float((self._place(np.array(tokens)) + MARGIN) / (1 + 2 * MARGIN))

    def apply(self, axes: Axes) -> None:
        axes.set_xscale("function", functions=(self._place, self._tokens))
        axes.set_xlim(*self._tokens(np.array([-MARGIN, 1 + MARGIN])))
        ticks = self.ticks()
        digits = next((n for n in range(3, 9) if len({tokens_text(tick, n) for tick in ticks}) == len(ticks)), 9)
        axes.set_xticks(ticks, [tokens_text(tick, digits) for tick in ticks])

    def ticks(self) -> list[float]:
        """Round numbers; on a stretched axis the ends of the experiences, and round numbers where there is room."""
        from matplotlib.ticker import MaxNLocator

        tokens, _ = self._knots
        if not self.stretched:
            return [
                tick
                for tick in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, tokens[-1])
                if tick <= tokens[-1]
            ]
        ticks = set(tokens)
        for start, end in itertools.pairwise(tokens):
            for tick in MaxNLocator(3, steps=[1, 2, 2.5, 5, 7.5, 10]).tick_values(start, end):
                gaps = np.abs(self._place(np.array(tick)) - self._place(np.array(sorted(ticks))))
                if start < tick < end and gaps.min() > 0.2:
                    ticks.add(tick)
        return sorted(ticks)

    def _place(self, tokens: np.ndarray) -> np.ndarray:
        return _interpolate(tokens, *self._knots)

    def _tokens(self, places: np.ndarray) -> np.ndarray:
        return _interpolate(places, *reversed(self._knots))


def _interpolate(values: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """np.interp that goes on beyond both ends with the slopes of the first and the last piece."""
    values = np.asarray(values, dtype=float)
    before = np.minimum(values - xs[0], 0) * (ys[1] - ys[0]) / (xs[1] - xs[0])
    after = np.maximum(values - xs[-1], 0) * (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
    return np.interp(values, xs, ys) + before + after


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres as near to `wanted` as can be (least squares), boxes of `sizes` not overlapping and in [low, high].

    Boxes keep their order, so with c_k the distance of box k from the first when all touch, the centres minus c must
    not fall: isotonic regression, by pooling neighbours that violate it. Boxes that need more room start at `low`.
    """
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    boxes = np.array([sizes[index] for index in order])
    touching = np.concatenate([[0], np.cumsum((boxes[1:] + boxes[:-1]) / 2)])
    pools: list[tuple[float, int]] = []  # mean, members
    for index, distance in zip(order, touching, strict=True):
        mean, members = wanted[index] - distance, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, members = (mean * members + other * others) / (members + others), members + others
        pools.append((mean, members))
    starts = np.concatenate([np.full(members, mean) for mean, members in pools])
    starts = np.maximum(np.minimum(starts, high - boxes[-1] / 2 - touching[-1]), low + boxes[0] / 2)
    centres = [0.0] * len(wanted)
    for index, centre in zip(order, starts + touching, strict=True):
        centres[index] = float(centre)
    return centres
