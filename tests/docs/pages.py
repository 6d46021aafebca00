"""The pages that people read, README.md and docs/, and the blocks of code in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in page.parts),
]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code: where it stands, its language, and the file that a reader is to save it as."""

    page: str
    line: int
    kind: str
    text: str
    caption: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def every_block() -> list[Block]:
    return [block for page in PAGES for block in _blocks(page)]


def blocks(*kinds: str) -> list[Block]:
    return [block for block in every_block() if block.kind in kinds]


def tokens(page: Path) -> Iterator[Token]:
    """All of a page's, those inside of lines too; a token without a place of its own has that of its line."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        for child in token.children or ():
            child.map = token.map
            yield child


def _blocks(page: Path) -> Iterator[Block]:
    for token in tokens(page):
        if token.type not in ("fence", "code_block"):
            continue
        kind, text, caption = token.info.strip(), token.content, None
        if kind.startswith("{code-block} "):
            options, _, text = text.partition("\n\n")
            kind, caption = kind.split()[1], options.partition(":caption:")[2].strip()
        assert token.map is not None
        name = str(page.relative_to(ROOT))
        yield Block(page=name, line=token.map[0] + 1, kind=kind, text=text, caption=caption)
