"""The figure of two response surfaces over two factors: contours, and where they were measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clmed.results.surface import Array, Surface
from clmed.results.table import tokens_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = 81
PANEL = 3.3  # inches: one column
COLOURS = {"gain": "Greens", "forgetting": "Reds"}


def draw(surfaces: Mapping[str, Surface], settings: Array, best: Array, path: Path) -> list[Path]:
    """PNG and SVG beside each other; a panel for each surface, points where runs were made, a star at the best."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 8, "svg.fonttype": "none", "font.family": ["DejaVu Sans"]}):
        figure = Figure(figsize=(PANEL * len(surfaces), 2.9), layout="constrained")
        for axes, (name, surface) in zip(
            figure.subplots(1, len(surfaces), squeeze=False)[0], surfaces.items(), strict=True
        ):
            _panel(axes, name, surface, settings, best)
        written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
        for file in written:
            figure.savefig(file, dpi=200)
    return written


def _panel(axes: "Axes", name: str, surface: Surface, settings: Array, best: Array) -> None:
    x, y = surface.factors
    columns, rows = np.meshgrid(x.spaced(STEPS), y.spaced(STEPS))
    heights = surface.at(np.stack([columns.ravel(), rows.ravel()], axis=1)).mean.reshape(columns.shape)
    axes.contourf(columns, rows, heights, levels=8, cmap=COLOURS.get(name, "Blues"), alpha=0.7)
    lines = axes.contour(columns, rows, heights, levels=8, colors="0.25", linewidths=0.6)
    axes.clabel(lines, fmt=lambda value: f"{value:g}", fontsize=7)
    axes.plot(*settings.T, "o", color="0.1", markersize=3, clip_on=False)
    axes.plot(*best, "*", color="0.1", markerfacecolor="white", markersize=10, clip_on=False)
    axes.set_title(f"{name}, points", fontsize=8)
    for factor, which in ((x, axes.xaxis), (y, axes.yaxis)):
        which.set_label_text(factor.name)
        which.axes.set(**{f"{which.axis_name}scale": "log" if factor.logarithmic else "linear"})
        which.set_ticks(list(factor.values), [_tick(value) for value in factor.values])
        which.set_ticks([], minor=True)


def _tick(value: float) -> str:
    return tokens_text(value) if value >= 1000 else f"{value:g}"
