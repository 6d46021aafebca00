"""The page as one HTML file: template, style, scripts and data together."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clmed import __version__
from clmed.errors import UserError
from clmed.results.report.page import Page, make_page
from clmed.results.rundir import RunDirectory, write_whole
from clmed.results.runs import find

SCRIPTS = ("tablesort.min.js", "page.js")
LEAST = -1e308  # what a cell without a value sorts by


def write_report(runs: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of `runs` and return its path: by default RUN/report.html for one run, report.html for several.

    Raises UserError for what is no run, and where no run has results yet.
    """
    found = find(runs)
    file = output or (RunDirectory(found[0]).report if len(found) == 1 else Path("report.html"))
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the file to write, such as {file / 'report.html'}.")
    write_whole(file, render(make_page(found)).encode())
    return file


def render(page: Page) -> str:
    """Every name and value is escaped, and the page's own script is the only one that a browser will run."""
    environment = Environment(
        loader=PackageLoader("clmed.results.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sortable"] = lambda value: f"{max(value, LEAST):.10g}"
    script = "\n".join(_asset(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page,
        version=__version__,
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=Markup(digest),
    )


def _asset(name: str) -> str:
    return resources.files("clmed.results.report").joinpath("assets", name).read_text(encoding="utf-8")
