"""The house as CONTRIBUTING.md draws it: floors, light modules, short files. Read with ast; nothing is imported."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for folder in ("clmed", "strategies")
    for file in sorted((ROOT / folder).rglob("*.py"))
}
# From the ground up: a package is one floor, a module at the top of clmed stands where it is named.
FLOORS = [
    {"clmed", "clmed.complaints", "clmed.errors", "clmed.starting_point"},
    {"clmed.declared", "clmed.quantities", "clmed.yamlfile"},
    {"clmed.catalogue", "clmed.config"},
    {"clmed.combinations"},
    {"clmed.results"},
    {"clmed.data", "clmed.planning"},
    {"clmed.live", "clmed.logits", "clmed.shards", "clmed.strategy", "clmed.voice"},
    {"clmed.adapters", "clmed.blocks", "clmed.stream", "clmed.subspace", "clmed.synthesis"},
    {"clmed.evaluation", "clmed.training"},
    {"clmed.lifetime", "clmed.lineage", "clmed.validation", "clmed.watching", "strategies"},
    {"clmed.experiment", "clmed.inspection"},
    {"clmed.api", "clmed.benchmark_options", "clmed.evaluate", "clmed.results_commands", "clmed.strategy_commands"},
    {"clmed.sweep"},
    {"clmed.tuning"},
    {"clmed.sweep_commands"},
    {"clmed.cli"},
    {"clmed.__main__"},
]
UPWARD = {
    # `data_root: miniworld` is a folder that has to be made before a path in it can be looked at.
    ("clmed.config.loading", "clmed.data.miniworld"),
    # The names of `import clmed`, which are imported when they are first asked for.
    ("clmed", "clmed.api"),
}
LIGHT = (
    "clmed.api", "clmed.cli", "clmed.strategy_commands", "clmed.config", "clmed.validation", "clmed.catalogue",
    "clmed.combinations", "clmed.declared",
    "clmed.results", "clmed.planning", "clmed.results_commands", "clmed.sweep", "clmed.tuning", "clmed.watching",
)  # fmt: skip
HEAVY = {"torch", "avalanche", "transformers", "datasets", "accelerate", "matplotlib", "sklearn", "pandas"}


def test_a_file_imports_from_floors_below_or_from_its_own_folder() -> None:
    wrong = []
    for module in MODULES:
        for imported in imports(module, deferred=True):
            if imported not in MODULES or (module, imported) in UPWARD:
                continue
            own, other = home(module), home(imported)
            if own != other and floor(own) <= floor(other):
                wrong.append(f"{module} imports {imported}")
    assert not wrong, "not below it (a new module at the top of clmed needs a floor here): " + "; ".join(wrong)


def test_light_modules_import_nothing_heavy_on_their_way() -> None:
    wrong = []
    for module in MODULES:
        if module.startswith(LIGHT):
            for reached in closure(module):
                wrong += [f"{module} -> {reached} -> {name}" for name in sorted(HEAVY & packages(reached))]
    assert not wrong, "; ".join(wrong)


def test_methods_are_found_by_name_and_know_nothing_of_the_trainer() -> None:
    """No file of clmed imports a method, and a method imports nothing that a user's own could not."""
    for module in MODULES:
        for imported in imports(module, deferred=True):
            if module.startswith("strategies"):
                assert home(imported) not in ("clmed.training", "clmed.evaluation", "clmed.experiment"), module
            else:
                assert not imported.startswith(("clmed.strategies", "strategies")), module


@pytest.mark.parametrize(("folder", "most"), [("clmed", 400), ("strategies", 100), ("tests", 400), ("benchmarks", 400)])
def test_files_are_short(folder: str, most: int) -> None:
    lengths = {str(file): file.read_text(encoding="utf-8").count("\n") for file in (ROOT / folder).rglob("*.py")}
    assert lengths and not {file: length for file, length in lengths.items() if length > most}


def home(module: str) -> str:
    """The package or, at the top of clmed, the module that stands on a floor."""
    top, *rest = module.split(".")
    return module if not rest else top if top == "strategies" else f"{top}.{rest[0]}"


def floor(name: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if name in names), 0)


def imports(module: str, *, deferred: bool) -> set[str]:
    """What a module imports when it is itself imported; `deferred`: also what its functions import."""
    return {name for name, late in _imports(module) if deferred or not late}


def packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module, deferred=False)}


def closure(module: str) -> set[str]:
    """The modules of clmed that are imported with a module: `a.b.c` imports `a` and `a.b` too."""
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        found = waiting.pop()
        reached.add(found)
        parents = {found.rsplit(".", depth)[0] for depth in range(1, found.count(".") + 1)}
        waiting |= {name for name in parents | imports(found, deferred=False) if name in MODULES} - reached
    return reached


@cache
def _imports(module: str) -> list[tuple[str, bool]]:
    return list(_walk(ast.parse(MODULES[module].read_text(encoding="utf-8")), late=False))


def _walk(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue  # for the type checker alone
        if isinstance(child, ast.Import):
            yield from ((alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module and not child.level, "imports are absolute"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from ((name if name in MODULES else child.module, late) for name in names)
        yield from _walk(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))
