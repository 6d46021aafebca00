"""The mixture as trained: the share of each source over the domain tokens, stacked to 100 %.

A source's share is its weight in the loss of a step, which `weighting: share` makes its share of the tokens. Runs that
were trained on the same mixture share a panel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clmed.results.groups import Group
from clmed.results.plots.frame import make_frame
from clmed.results.plots.streams import trained
from clmed.results.plots.style import COLOURS, LARGE, LEFT, WIDTH, new_figure, tell, text_width
from clmed.results.plots.training import sources
from clmed.results.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Mixture = tuple[np.ndarray, np.ndarray]

WINDOWS = 25  # in an experience
HATCHES = ("", "////", "....", "\\\\\\\\")
SAME = 0.02  # shares that differ by less are one mixture


def missing(grouped: Sequence[Group]) -> str:
    """Why there is nothing to draw, or nothing."""
    if any(share > 0 for group in grouped for row in group.runs[0].training for share in _shares(row).values()):
        return ""
    return f"{grouped[0].runs[0].path} holds no training steps"


def mixture(run: Run, names: Sequence[str]) -> list[Mixture]:
    """For each experience: domain tokens at the edges of windows (W+1), and each source's share in them (W x sources).

    Windows are equally wide in domain tokens (a step of general text alone has none); the shares of each add up to 1.
    """
    result: list[Mixture] = []
    before = 0.0
    for _, rows in itertools.groupby(run.training, key=lambda row: row["experience"]):
        steps = list(rows)
        tokens = np.array([row["tokens"] for row in steps], dtype=float)
        found = np.array([[row.get(f"share/{name}", 0.0) for name in names] for row in steps])
        edges = np.linspace(before, tokens[-1], min(WINDOWS, len(steps)) + 1)
        window = np.clip(np.searchsorted(edges, tokens) - 1, 0, len(edges) - 2)
        sums = np.zeros((len(edges) - 1, len(names)))
        np.add.at(sums, window, found)
        # Where steps are wider than windows, some windows hold no step.
        full = sums.sum(axis=1) > 0
        edges, sums = np.append(edges[0], edges[1:][full]), sums[full]
        result.append((edges, sums / sums.sum(axis=1, keepdims=True)))
        before = tokens[-1]
    return result


def alike(grouped: Sequence[Group], names: Sequence[str]) -> list[list[Group]]:
    """Groups whose first runs were trained on the same mixture, together."""
    result: list[tuple[list[Mixture], list[Group]]] = []
    for group in grouped:
        own = mixture(group.runs[0], names)
        if not own:
            continue
        for known, same in result:
            if _same(known, own):
                same.append(group)
                break
        else:
            result.append((own, [group]))
    return [same for _, same in result]


def draw(grouped: Sequence[Group]) -> Figure:
    """A panel for each mixture, with the names of its runs; sources are explained below."""
    from matplotlib.patches import Patch

    runs = [group.runs[0] for group in grouped if group.runs[0].training]
    names = sources(runs)
    shown = alike(grouped, names)
    styles = [_style(number) for number in range(len(names))]
    with new_figure([*names, *(group.label for group in grouped), *(e for run in runs for e in run.stream)]) as figure:
        streams = [[trained(group.runs[0]) for group in same] for same in shown]
        frame = make_frame(figure, streams, [], across=min(2, len(shown)))
        width = frame.across * WIDTH - LEFT
        columns = max(1, int(width / (max(text_width(figure, name) for name in names) + 0.4)))
        handles = [Patch(label=name, **style) for name, style in zip(names, styles, strict=True)]
        legend = figure.legend(
            handles=handles, loc="lower left", ncols=columns, frameon=False, borderpad=0.2, borderaxespad=0.3,
            columnspacing=1.2, handlelength=1.6, handletextpad=0.5, labelspacing=0.3,
        )  # fmt: skip
        foot = legend.get_window_extent().height / figure.dpi + 0.08
        for axes, track, same in zip(frame.panels(figure, foot), frame.tracks, shown, strict=True):
            frame.head(figure, axes, track, _title(figure, [group.label for group in same]), "")
            for edges, shares in mixture(same[0].runs[0], names):
                levels = 100 * np.cumsum(np.hstack([np.zeros((len(shares), 1)), shares]), axis=1)
                for number, style in enumerate(styles):
                    low, high = levels[:, number], levels[:, number + 1]
                    if (high > low).any():
                        drawn = axes.stairs(high, edges, baseline=low, fill=True, **style)
                        tell(drawn, [f"{names[number]}: {np.mean(high - low):.1f} % of this experience"])
            axes.set_ylim(0, 100)
            axes.set_ylabel("share of training (%)")
    return figure


def _style(number: int) -> dict[str, Any]:
    colour, hatch = COLOURS[number % len(COLOURS)], HATCHES[number // len(COLOURS) % len(HATCHES)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "white" if hatch else colour, "linewidth": 0}


def _title(figure: Figure, names: Sequence[str]) -> str:
    """As many names as a panel's width holds, and how many more there are."""
    for count in range(len(names), 0, -1):
        rest = f" and {len(names) - count} more" if count < len(names) else ""
        title = ", ".join(names[:count]) + rest
        if count == 1 or text_width(figure, title, fontsize=LARGE, fontweight="bold") < WIDTH - 0.2:
            return title
    return ""


def _shares(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith("share/")}


def _same(one: Sequence[Mixture], other: Sequence[Mixture]) -> bool:
    """Whether two mixtures have the same experiences and sources, and on average the same shares in a window."""
    return len(one) == len(other) and all(
        shares.shape == others.shape
        and (shares.any(axis=0) == others.any(axis=0)).all()
        and np.abs(shares - others).mean() < SAME
        for (_, shares), (_, others) in zip(one, other, strict=True)
    )
