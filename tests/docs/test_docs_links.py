"""Links between the pages, and from them to files of the checkout: what they lead to is there."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, tokens

# Kept short: what a newcomer reads before anything else.
README_LINES, README_WIDTH = 70, 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for token in tokens(page):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if not target or re.match(r"(https?|mailto):", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        to = (page.parent / path) if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(f"line {(token.map or [0])[0] + 1}: {target}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub and MyST make them."""
    found, heading = set(), False
    for token in tokens(page):
        if token.type == "inline" and heading:
            plain = re.sub(r"[^\w\- ]", "", token.content.lower())
            found.add(plain.replace(" ", "-"))
        heading = token.type == "heading_open"
    return found


def test_every_page_is_in_the_contents() -> None:
    """`make docs` says so too, but is not part of the tests."""
    listed = {ROOT / "docs" / "index.md"}
    for page in PAGES:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            found = [list(page.parent.glob(f"{name}.md")) for name in names]
            assert all(found), f"nothing there for one of {names}"
            listed |= {each for several in found for each in several}
    assert not {page for page in PAGES if ROOT / "docs" in page.parents} - listed


def test_the_readme_is_one_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES
    assert max(map(len, lines)) <= README_WIDTH
