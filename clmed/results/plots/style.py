"""One look for all figures, and the one place where they become files.

Made for print: a panel is one column (3.3 in) wide with no text below 7 pt. Colours are Okabe and Ito's (2008), told
apart by the colour-blind, and never the only difference: markers, dashes, hatches or labels survive a grey copy.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from clmed.results.plots.fonts import han_fonts

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

# Lengths in inches.
WIDTH, HEIGHT = 3.3, 2.3
LEFT, BOTTOM, TITLE = 0.5, 0.4, 0.24
SMALL, LARGE = 7.0, 8.0  # points
LINE = SMALL * 1.2 / 72
GREY = "#555555"
PALE = "#dddddd"
# Without Okabe and Ito's yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"
# Dots are kept for the base model. Four patterns and seven colours make 28 different pairs.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (2.5, 1)))


# What a page may show under the pointer: a text for each mark (marker, cell) of an artist in its order, or one for all.
VALUES: WeakKeyDictionary[Artist, list[str]] = WeakKeyDictionary()


@contextlib.contextmanager
def new_figure(words: Iterable[str]) -> Iterator[Figure]:
    """An empty figure to draw on, inside this context. `words`: its labels, for which a font is looked for."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = ["DejaVu Sans", *han_fonts(" ".join(words))]
    settings: dict[Any, Any] = {
        "font.family": fonts,
        "font.size": SMALL,
        "text.parse_math": False,
        "axes.labelsize": SMALL,
        "axes.linewidth": 0.6,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.pad": 2,
        "ytick.major.pad": 2,
        "axes.labelpad": 2,
        "hatch.linewidth": 0.4,
        "legend.fontsize": SMALL,
    }
    with matplotlib.rc_context(settings), no_glyph_warnings():
        figure = Figure(dpi=200)
        FigureCanvasAgg(figure)
        yield figure


def tell(artist: Artist, values: Iterable[str]) -> None:
    """Texts for the pointer, see VALUES."""
    VALUES[artist] = list(values)


def render(figure: Figure, format: str, dpi: float | Literal["figure"] = "figure") -> bytes:
    """The figure as a file's content (png, svg, pdf). Without a date the same run gives the same bytes."""
    import matplotlib

    metadata: dict[str, Any] | None = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format)
    # 42: text in a PDF stays text (TrueType), which journals ask for.
    with matplotlib.rc_context({"svg.hashsalt": "clmed", "pdf.fonttype": 42}), no_glyph_warnings():
        figure.savefig(drawn := io.BytesIO(), format=format, metadata=metadata, dpi=dpi)
    return drawn.getvalue()


@contextlib.contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Characters without a font have been told once, with the package to install; bold ones may be plain."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            yield
    finally:
        log.setLevel(level)


def text_size(figure: Figure, text: str, **style: Any) -> tuple[float, float]:
    """(width, height) in inches."""
    artist = figure.text(0, 0, text, **style)
    box = artist.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    artist.remove()
    return box.width / figure.dpi, box.height / figure.dpi


def text_width(figure: Figure, text: str, **style: Any) -> float:
    """In inches."""
    return text_size(figure, text, **style)[0]


def cut(figure: Figure, text: str, width: float, **style: Any) -> str:
    """A text that is longer than so many inches ends in an ellipsis."""
    if len(text) * LARGE / 72 <= width or text_width(figure, text, **style) <= width:  # no letter is wider than high
        return text
    while text and text_width(figure, text + "…", **style) > width:
        text = text[:-1].rstrip()
    return text + "…"
