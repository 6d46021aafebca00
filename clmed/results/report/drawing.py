"""A matplotlib figure as SVG inside the page: a panel each, text as shapes, values for the pointer, words to read."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from clmed.results.plots.style import VALUES, WIDTH, no_glyph_warnings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
EDGE = 0.04  # inches around a panel
PIXELS = 96  # of an inch, as browsers have it


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """name: its id on the page; panels: (width in pixels at which text has the size that it was made for, SVG)."""

    name: str
    caption: str
    panels: tuple[tuple[int, Markup], ...]


def inline(figure: Figure, *, name: str, alternative: str, caption: str, apart: bool) -> Drawing:
    """The figure without a background, so that it lies on paper of any colour.

    alternative: what it shows, for those who cannot see it; apart: each of its panels (columns of WIDTH inches) is a
    drawing of its own, so that a phone shows them below each other.
    """
    values = {}
    for number, artist in enumerate(artist for artist in VALUES if artist.figure is figure):
        artist.set_gid(f"values-{number}")
        values[f"values-{number}"] = VALUES[artist]
    with no_glyph_warnings():
        panels = tuple(
            _svg(figure, box, name=f"{name}-{number}", alternative=alternative, values=values)
            for number, box in enumerate(_boxes(figure, apart and len(figure.axes) > 1))
        )
    footer = " ".join(text.get_text() for text in figure.texts) if len(panels) > 1 else ""
    return Drawing(name=name, caption=f"{caption} {footer}".strip(), panels=panels)


def _boxes(figure: Figure, apart: bool) -> Iterator[Any]:
    """The box in inches of each panel while all others are out of sight, the legend's last; or that of the figure."""
    from matplotlib.transforms import Bbox

    if not apart:
        yield Bbox.from_bounds(0, 0, *figure.get_size_inches())
        return
    parts = [*figure.axes, *figure.legends]
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    to_inches = figure.dpi_scale_trans.inverted()
    boxes = [part.get_tightbbox(renderer) for part in parts]
    for part, found in zip(parts, boxes, strict=True):
        assert found is not None, "it has been in sight"
        box = found.transformed(to_inches)
        for other in parts:
            other.set_visible(other is part)
        left = WIDTH * int((box.x0 + box.x1) / 2 / WIDTH)
        if box.x0 < left - EDGE or box.x1 > left + WIDTH + EDGE:  # wider than a column, or across two
            left = box.x0 - EDGE
        yield Bbox.from_extents(left, box.y0 - EDGE, max(left + WIDTH, box.x1 + EDGE), box.y1 + EDGE)


def _svg(
    figure: Figure, box: Any, *, name: str, alternative: str, values: Mapping[str, list[str]]
) -> tuple[int, Markup]:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "clmed", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches=box, metadata={"Date": None})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(buffer.getvalue())
    for part in (*root.findall(f"{{{SVG}}}metadata"), *root.findall(f"{{{SVG}}}defs[{{{SVG}}}style]")):
        root.remove(part)  # a style would hold for the whole page, which has its own
    for group in root.iter(f"{{{SVG}}}g"):
        if texts := values.get(group.get("id", "")):
            for mark, text in zip(_marks(group, len(texts)), texts, strict=False):
                mark.set("data-tip", text)
    for size in ("width", "height"):
        del root.attrib[size]  # the page's own
    root.set("role", "img")
    root.set("aria-label", alternative)
    text = ElementTree.tostring(root, encoding="unicode")
    # Figures on one page must not share ids, and glyphs have the same ones in each.
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return round(PIXELS * box.width), Markup(text)


def _marks(group: ElementTree.Element, count: int) -> list[ElementTree.Element]:
    """The markers or cells of an artist where there are `count` of them, else the artist as a whole."""
    for found in (list(group.iter(f"{{{SVG}}}use")), group.findall(f"{{{SVG}}}path")):
        if len(found) == count:
            return found
    return [group]
