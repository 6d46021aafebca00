"""Response surfaces over two factors: contours of the mean, dots where runs were made, a star at the best balance.

A factor that enters by its logarithm has a logarithmic axis. Dark is much: of gain (blue) and of forgetting (orange).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from clmed.results.plots.style import COLOURS, LARGE, SMALL, WIDTH, new_figure
from clmed.results.surface import Array, Surface
from clmed.results.table import tokens_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = 81
HEIGHT = 2.8  # inches
LEVELS = 8
BLUE, ORANGE = COLOURS[:2]


def draw(surfaces: Mapping[str, Surface], settings: Array, best: Array) -> Figure:
    """surfaces: by name, over the same two factors; settings: runs x 2; best: the setting with the star."""
    factors = next(iter(surfaces.values())).factors
    with new_figure([*surfaces, *(factor.name for factor in factors)]) as figure:
        figure.set_size_inches(WIDTH * len(surfaces), HEIGHT)
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(surfaces), squeeze=False)[0]
        for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
            _panel(axes, name, surface, settings, best)
        figure.draw_without_rendering()  # the layout, while the fonts are those of this figure
    return figure


def _panel(axes: Axes, name: str, surface: Surface, settings: Array, best: Array) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    x, y = surface.factors
    columns, rows = np.meshgrid(x.spaced(STEPS), y.spaced(STEPS))
    heights = surface.at(np.stack([columns.ravel(), rows.ravel()], axis=1)).mean.reshape(columns.shape)
    colours = LinearSegmentedColormap.from_list(name, ["white", ORANGE if name == "forgetting" else BLUE])
    axes.contourf(columns, rows, heights, levels=LEVELS, cmap=colours, alpha=0.8)
    lines = axes.contour(columns, rows, heights, levels=LEVELS, colors="0.25", linewidths=0.6)
    axes.clabel(lines, fmt=lambda value: f"{value:g}", fontsize=SMALL)
    axes.plot(*settings.T, "o", color="0.1", markersize=3, clip_on=False)
    axes.plot(*best, "*", color="0.1", markerfacecolor="white", markersize=10, clip_on=False)
    axes.set_title(f"{name}, points of accuracy", fontsize=LARGE)
    axes.set(xscale="log" if x.logarithmic else "linear", yscale="log" if y.logarithmic else "linear")
    for factor, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        axis.set_label_text(factor.name)
        axis.set_ticks(list(factor.values), labels=[_tick(value) for value in factor.values])
        axis.set_ticks([], minor=True)


def _tick(value: float) -> str:
    return tokens_text(value) if value >= 1000 else f"{value:g}"
