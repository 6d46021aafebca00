"""Load every entry point of an installed clmed and check that it comes from the given folder, not from a checkout."""

import sys
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
print("\n".join(loaded))
