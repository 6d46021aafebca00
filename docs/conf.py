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
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
# Indented blocks are commands and YAML alike.
highlight_language = "none"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
