"""Figures of runs.

    figures([Path("runs/naive"), Path("runs/replay")])      # name -> a function that draws it
    figure = figures(runs)["plane"]()                       # a matplotlib Figure, as notebooks show it
    render(figure, "svg")                                   # its bytes: "png", "svg" or "pdf"
    plot_runs(runs, out, only=["plane"], formats=["pdf"])   # files; what `clmed plot` does

Each figure is a module with `draw(groups) -> Figure` and `missing(groups)`, which says why these runs cannot have it.
`groups` are runs that differ in their seeds only; they share colour and label. A run that is not complete says so in
its label; one without results is left out where others have some. Nothing is drawn before it is asked for, and
matplotlib is imported only then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from clmed.complaints import did_you_mean
from clmed.errors import UserError
from clmed.results.groups import Group, by_strategy
from clmed.results.plots import forgetting, heatmap, mixture, plane, training
from clmed.results.plots.fonts import han_fonts
from clmed.results.plots.runs import words
from clmed.results.plots.style import FORMATS, render
from clmed.results.rundir import write_whole
from clmed.results.runs import Run, nothing_measured, open_runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DRAWN", "FORMATS", "figures", "plot_runs", "render"]

DRAWN = {"forgetting": forgetting, "plane": plane, "heatmap": heatmap, "training": training, "mixture": mixture}


def figures(runs: Sequence[Path]) -> dict[str, Callable[[], Figure]]:
    """The figures that these runs allow: name -> a function that draws it.

    Raises UserError where there is no run, and where none has results.
    """
    return drawable(_open(runs))


def drawable(runs: Sequence[Run]) -> dict[str, Callable[[], Figure]]:
    """The same of runs that have results."""
    grouped = by_strategy(runs)
    return {name: partial(kind.draw, grouped) for name, kind in DRAWN.items() if not kind.missing(grouped)}


def plot_runs(
    runs: Sequence[Path],
    out: Path | None = None,
    only: Sequence[str] = (),
    formats: Sequence[str] = ("png", "svg"),
    tell: Callable[[str], object] = str,
) -> list[Path]:
    """Write the figures that `runs` allow, or those named in `only`; returns the files: forgetting.png, forgetting.svg.

    They go to `out`; by default to the run's own figures/ for one run, and for several to figures/ in the current
    directory. tell: is given what is to be known of a run that is not complete or not whole. Raises UserError as
    `figures` does, for an unknown name, and for what in `only` cannot be drawn.
    """
    for what, wanted, known in (("figure", only, [*DRAWN]), ("format", formats, [*FORMATS])):
        for name in wanted:
            if name not in known:
                raise UserError(f"There is no {what} '{name}'{did_you_mean(name, known)}")
    found = _open(runs, tell)
    grouped = by_strategy(found)
    lacks = {name: kind.missing(grouped) for name, kind in DRAWN.items()}
    names = list(only) or [name for name in DRAWN if not lacks[name]] or ["forgetting"]
    if impossible := [lacks[name] for name in names if lacks[name]]:
        raise UserError(f"{impossible[0]}.")
    folder = out or (grouped[0].runs[0].directory.figures if len(found) == 1 else Path("figures"))
    write = partial(_write, grouped, folder, tuple(formats))
    if len(names) == 1:
        return write(names[0])
    # Somebody waits, so figures are drawn beside each other. What all need is loaded before the processes part.
    import matplotlib.figure  # noqa: F401

    han_fonts(" ".join(word for group in grouped for run in group.runs for word in (run.name, *words(run))))
    with ProcessPoolExecutor(max_workers=min(len(names), os.cpu_count() or 1), mp_context=get_context("fork")) as pool:
        return [file for files in pool.map(write, names) for file in files]


def _write(grouped: Sequence[Group], folder: Path, formats: Sequence[str], name: str) -> list[Path]:
    figure = DRAWN[name].draw(grouped)
    files = [folder / f"{name}.{format}" for format in formats]
    for file in files:
        write_whole(file, render(figure, file.suffix[1:]))
    return files


def _open(paths: Sequence[Path], tell: Callable[[str], object] = str) -> list[Run]:
    runs = open_runs(paths)
    measured = [run for run in runs if run.rows]
    if not measured:
        raise nothing_measured(runs, "plotted")
    for run in runs:
        _ = run.training  # so that all know of it, if it is damaged
        for told in filter(None, (run.told, run.unscored)):
            tell(f"{run.path} {told}")
    return measured
