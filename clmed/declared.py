"""What a strategy's class declares, its own and inherited, read from its source: importing it takes many seconds."""

import ast
import difflib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, ClassVar

from clmed.errors import UserError

STRATEGY = "clmed.strategy.Strategy"
MOMENTS = (
    *("training", "train_dataset_adaptation", "training_exp", "training_epoch", "training_iteration"),
    *("forward", "backward", "update"),
    *("eval", "eval_dataset_adaptation", "eval_exp", "eval_iteration", "eval_forward"),
)
CALLBACKS = [f"{when}_{moment}" for moment in MOMENTS for when in ("before", "after")]  # Avalanche's
NO_PARAMETERS = ast.FunctionDef(
    name="__init__",
    args=ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]),
    body=[],
    decorator_list=[],
)


class StandIn:
    """An empty class with bases like those of one in a source, so that Python's own rules say what it inherits.

    `init`: the syntax of `__init__`, None where it cannot be told; `cost` and `check_blocks`: that of these methods,
    None where there is none; `adapts`: whether it has an `adapt_model`. The others are what clmed/strategy.py says.
    Its own `__init__` is what that of the source refuses: the statements that can raise an error, and the calls of
    `super().__init__`.
    """

    init: ClassVar[ast.FunctionDef | None] = NO_PARAMETERS
    cost: ClassVar[ast.FunctionDef | None] = None
    check_blocks: ClassVar[ast.FunctionDef | None] = None
    adapts: ClassVar[bool] = False
    alone: ClassVar[str] = ""
    decides: ClassVar[tuple[str, ...]] = ()
    follows: ClassVar[tuple[str, ...]] = ()
    adapters: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    across: ClassVar[bool] = False
    optimizer: ClassVar[tuple[tuple[str, Any], ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    rehearsed: ClassVar[tuple[str, ...]] = ()
    in_stream: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ()
    joins: ClassVar[bool] = False
    gives: ClassVar[str] = ""


DECLARED = set(StandIn.__annotations__) - {"init", "cost", "check_blocks", "adapts"}


class AnyStrategy(StandIn):
    """For the base class of all strategies."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Python file: its classes, its constants, and what imported names mean (`EWC` -> `.ewc.EWC`)."""

    path: Path
    package: str
    classes: Mapping[str, ast.ClassDef]
    constants: Mapping[str, Any]
    imported: Mapping[str, str]


def read(path: Path, module: str) -> Source:
    """Raises OSError, SyntaxError and the like for what cannot be read. module: the name, where it has one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            dots, origin = "." * node.level, [node.module] if node.module else []
            imported |= {alias.asname or alias.name: dots + ".".join([*origin, alias.name]) for alias in node.names}
    return Source(
        path=path,
        package=module if path.name == "__init__.py" else module.rpartition(".")[0],
        classes={node.name: node for node in tree.body if isinstance(node, ast.ClassDef)},
        constants=_literals(tree.body),
        imported=imported,
    )


def stand_in(source: Source, name: str) -> type[StandIn]:
    """For a class of a file."""
    return _meant(source, name, {})


_Made = dict[tuple[Path, str], type[StandIn] | None]  # by file and name of class; None while it is being made


def _meant(source: Source, name: str, made: _Made) -> type[StandIn]:
    """The stand-in for the class that a name (`EWC`, `ewc.EWC`) means in a file; ImportError if there is none."""
    key = (source.path, name)
    if (known := made.get(key)) is not None:
        return known
    if name in source.classes and key not in made:  # in `class EWC(EWC)` the second is an imported one
        made[key] = None
        made[key] = found = _stand_in(source, source.classes[name], made)
        return found
    first, dot, rest = name.partition(".")
    full = importlib.util.resolve_name(source.imported.get(first, first) + dot + rest, source.package)
    if full == STRATEGY:
        return AnyStrategy
    module, _, class_name = full.rpartition(".")
    spec = find_spec(module) if module else None
    if spec is None or spec.origin is None:
        raise ImportError(full)
    return _meant(read(Path(spec.origin), module), class_name, made)


def _stand_in(source: Source, node: ast.ClassDef, made: _Made) -> type[StandIn]:
    own = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
    # A decorator, such as that of dataclasses, may write an `__init__`.
    members: dict[str, Any] = {"init": own.get("__init__")} if "__init__" in own or node.decorator_list else {}
    members |= {name: own[name] for name in ("cost", "check_blocks") if name in own}
    members |= {"adapts": True} if "adapt_model" in own else {}
    members |= {name: value for name, value in _literals(node.body).items() if name in DECLARED}
    generic = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    try:
        bases = [_meant(source, ast.unparse(base), made) for base in generic] or [StandIn]
        return _with_checks(source, node.name, bases, members, own.get("__init__"))
    except (ImportError, OSError, SyntaxError, ValueError, TypeError, RecursionError):
        return type(node.name, (StandIn,), {"init": None, **members})


def _with_checks(
    source: Source, name: str, bases: list[type[StandIn]], members: dict[str, Any], init: ast.FunctionDef | None
) -> type[StandIn]:
    """The stand-in, as a class of its own syntax: `super()` needs that."""
    inside: list[ast.stmt] = [ast.Pass()]
    if init is not None:
        arguments = [ast.arg(each.arg) for each in init.args.kwonlyargs]
        inside = [
            ast.FunctionDef(
                name="__init__",
                args=ast.arguments(
                    posonlyargs=[],
                    args=[ast.arg("self")],
                    kwonlyargs=arguments,
                    kw_defaults=init.args.kw_defaults,
                    kwarg=ast.arg("others"),  # whether they are known is told elsewhere
                    defaults=[],
                ),
                body=[*filter(_refuses, init.body), ast.Pass()],
                decorator_list=[],
            )
        ]
    scope: dict[str, Any] = {**source.constants, "UserError": UserError}
    scope |= {f"base{index}": base for index, base in enumerate(bases)}
    named: list[ast.expr] = [ast.Name(f"base{index}", ast.Load()) for index in range(len(bases))]
    tree = ast.ClassDef(name=name, bases=named, keywords=[], body=inside, decorator_list=[])
    module = ast.fix_missing_locations(ast.Module([tree], []))
    with suppress(NameError):  # a default that only the file itself knows
        exec(compile(module, str(source.path), "exec"), scope)
        for key, value in members.items():
            setattr(scope[name], key, value)
        return scope[name]
    return type(name, tuple(bases), members)


def _refuses(statement: ast.stmt) -> bool:
    """Whether a statement of `__init__` may refuse parameters: an `if` that raises, or a call of super's."""
    if isinstance(statement, ast.If):
        return any(isinstance(node, ast.Raise) for node in ast.walk(statement))
    return isinstance(statement, ast.Expr) and ast.unparse(statement).startswith("super().__init__(")


def _literals(body: list[ast.stmt]) -> dict[str, Any]:
    """The names that are set to plain values: `NAME = 1`, `NAME: int = 1`, `ONE, OTHER = 1, 2`."""
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            with suppress(ValueError, TypeError):
                value = ast.literal_eval(node.value)
                if isinstance(target, ast.Tuple):
                    found |= {ast.unparse(name): each for name, each in zip(target.elts, value, strict=True)}
                else:
                    found[ast.unparse(target)] = value
    return found


def wrong_callbacks(node: ast.ClassDef) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) of methods that look like callbacks and are none, or cannot be called as one."""
    plain = [member for member in node.body if isinstance(member, ast.FunctionDef) and not member.decorator_list]
    for member in plain:
        if member.name.startswith(("before_", "after_")):
            near = difflib.get_close_matches(member.name, CALLBACKS, n=1, cutoff=0.8)
            if near and near[0] != member.name:
                other = "(A method of your own with such a name needs another.)"
                yield member.lineno, f"nothing calls `{member.name}`; did you mean '{near[0]}'? {other}"
            elif near and len(member.args.posonlyargs + member.args.args) < 2 and member.args.vararg is None:
                yield member.lineno, f"it is called with the trainer: def {member.name}(self, trainer, **kwargs)"


def find_spec(module: str) -> ModuleSpec | None:
    """Where a module is, without importing it or (unlike `importlib.util.find_spec`) the packages around it."""
    spec, folders = None, None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        spec = next((found for finder in finders if (found := finder.find_spec(name, folders))), None)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return spec
