"""Every strategy that ships with clmed has a page in docs/strategies/ that is true to its source."""

import ast
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from clmed import catalogue

PAGES = Path(__file__).parent.parent.parent / "docs" / "strategies"
NAMES = sorted(entry.name for entry in entry_points(group=catalogue.GROUP) if entry.module.startswith("clmed."))
# `name`, or several, and the default of each: | `top_p`, `temperature` | 0.6, 0.9 | meaning |
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \|", re.MULTILINE)


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def told(parameter: catalogue.Parameter) -> str:
    """A default as pages write it."""
    value = "required" if parameter.required else ast.literal_eval(parameter.default)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}".removesuffix(".0") if value or value == 0 else "none"


@pytest.mark.parametrize("name", NAMES)
def test_its_page_says_when_to_use_it_what_it_costs_and_the_formula(name: str) -> None:
    text = page(name)
    assert re.search(r"\*\*When|Use it when|Use it where|Use it\nwhen|When to use", text)
    assert re.search(r"\*\*Costs|^Costs|What it costs|costs nothing", text, re.MULTILINE)
    assert name in ("naive", "frozen") or "```text" in text or "**Formula.**" in text or "·" in text


@pytest.mark.parametrize("name", NAMES)
def test_its_page_has_every_parameter_and_its_papers(name: str) -> None:
    info, text = catalogue.find(name), page(name)
    assert text.startswith(f"# {name}")
    defaults = {}
    for names, values in ROW.findall(text):
        defaults |= dict(zip(re.findall(r"`(\w+)`", names), values.replace("`", "").split(", "), strict=True))
    assert defaults.keys() <= info.parameters.keys()
    for key, parameter in info.parameters.items():
        assert re.search(rf"`{key}[`:]", text), key
        # A None may stand for what is worked out from others, which the page says in words.
        if key in defaults and parameter.default != "None":
            assert defaults[key].removesuffix(".0") == told(parameter), key
    papers = re.findall(r"\d{4}\.\d{5}", info.source)
    assert papers and all(f"arXiv {paper}" in text for paper in papers)


def test_the_list_of_pages_is_whole_and_by_family() -> None:
    rows = re.findall(r"^\| ([\w ]*?) ?\| \[(\w+)\]\((\w+)\.md\)", page("README"), re.MULTILINE)
    listed, family = {}, ""
    for heading, name, file in rows:
        family, listed[name] = heading or family, heading or family
        assert name == file
    assert listed == {name: catalogue.find(name).family for name in NAMES}
    assert {path.stem for path in PAGES.glob("*.md")} == {*NAMES, "README"}
