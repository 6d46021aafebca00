"""A font for Chinese labels, which matplotlib's own font does not hold."""

import logging
import re
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

HAN = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")
FILES = re.compile(r"cjk|notosanssc|notoserifsc|sourcehan|wqy|simhei|msyh|pingfang|uming|ukai|fallback", re.IGNORECASE)


def han_fonts(text: str) -> list[str]:
    """[] if `text` holds no Han character, else the name of an installed font for all of them; warns without one.

    Looks among the files of the machine; matplotlib's own list is a cache that misses fonts installed since.
    """
    han = {ord(character) for character in HAN.findall(text)}
    if not han:
        return []
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    # A family comes as a file per weight, of which Black and Bold sort before Regular.
    for file in sorted(font_manager.findSystemFonts(), key=lambda file: ("regular" not in file.lower(), file)):
        if FILES.search(Path(file).name) and han <= FT2Font(file).get_charmap().keys():
            known = len(font_manager.fontManager.ttflist)
            font_manager.fontManager.addfont(file)
            names = [entry.name for entry in font_manager.fontManager.ttflist[known:]]
            # One file may hold the Japanese, Korean and Chinese forms of the characters.
            return [next((name for name in names if name.endswith((" SC", " CN"))), names[0])]
    tell_of_none()
    return []


@cache
def tell_of_none() -> None:
    """Once is enough for all figures."""
    log.warning(
        "The labels hold Chinese characters and this machine has no font for them: they appear as boxes. "
        "Install one (Debian, Ubuntu: apt install fonts-noto-cjk) and plot again."
    )
