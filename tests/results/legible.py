"""Whether a figure can be read: no text over another, none cut off, none too small."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST = 7.0  # points


def assert_legible(figure: Figure) -> None:
    """Every text is inside the page, large enough and on no other text."""
    renderer, page = figure.canvas.get_renderer(), figure.bbox
    figure.draw(renderer)
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    hidden, boxes = set(hidden_ticks(figure)), []
    for text in texts:
        if text in hidden:
            continue
        box = text.get_window_extent(renderer)
        words = repr(text.get_text())
        assert text.get_fontsize() >= SMALLEST, f"{words} is too small"
        inside = page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1 and page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1
        assert inside, f"{words} is cut off: {box} of {page}"
        boxes.append((words, box))
    low, high = (np.array([getattr(box, corner) for _, box in boxes]) for corner in ("min", "max"))
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    pairs = np.argwhere(np.triu((shared > 2).all(axis=2), 1))
    assert not len(pairs), "; ".join(f"{boxes[one][0]} is on {boxes[other][0]}" for one, other in pairs)


def hidden_ticks(figure: Figure) -> Iterator[Text]:
    """Labels of ticks beyond the limits: they exist, but are not drawn."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)
