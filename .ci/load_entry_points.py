"""Load every entry point of an installed clmed and check that it comes from the given folder, not from a checkout."""

import sys
from importlib import resources
from importlib.metadata import distributions
from pathlib import Path

site = Path(sys.argv[1]).resolve()
clmed = next(d for d in distributions(path=[str(site)]) if d.metadata["Name"] == "clmed")
loaded = []
for entry in clmed.entry_points:
    found = entry.load()
    source = Path(sys.modules[found.__module__].__file__ or "").resolve()
    assert site in source.parents, f"{entry.name} comes from {source}"
    loaded.append(f"{entry.group}: {entry.name}")
assert any(line.startswith("clmed.strategies") for line in loaded)
# What is no code is packed only where setup.cfg names it.
for asset in ("page.html", "style.css", "page.js", "tablesort.min.js", "tablesort.LICENCE.txt"):
    assert resources.files("clmed.results.report").joinpath("assets", asset).is_file(), f"the report lacks {asset}"
print("\n".join(loaded))
