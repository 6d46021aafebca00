"""Sphinx: `make docs` writes docs/_build/html. The pages are Markdown that reads well on its own, too."""

import sys
from pathlib import Path

from clmed import __version__

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "clmed"
author = "the clmed authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "settings"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "clmed"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_copyright = False
html_show_sphinx = False
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
smartquotes = False  # would make one dash of --option
# Every block names its language (tests/docs).
highlight_language = "none"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
linkcheck_timeout, linkcheck_retries = 20, 2
# They turn robots away.
linkcheck_ignore = [r"https://doi\.org/", r"https://www\.jstor\.org/"]
