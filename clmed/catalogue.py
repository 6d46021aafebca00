"""The catalogue of strategies: what there is, what it is for and which parameters it takes.

A strategy is found by the name of an entry point of the group `clmed.strategies` (the built-ins are nothing else) or as
`my_file.py:Class`. Its parameters are the keyword-only arguments of its `__init__`, which may be inherited. All this is
read from the source with `ast`, because importing a strategy imports avalanche and torch (7 s and more); only `load`
imports.
"""

import ast
import hashlib
import importlib.util
import keyword
import math
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from clmed.complaints import did_you_mean, shown
from clmed.declared import AnyStrategy, StandIn, find_spec, read, stand_in, wrong_callbacks
from clmed.errors import UserError

GROUP = "clmed.strategies"
FAMILIES = ("references", "data", "regularisation", "architecture", "weight space", "schedule")
FIELDS = "Family|Source|Experimental"
# What a docstring says in one of them: from a line that begins so to an empty line or the next of them.
FIELD = re.compile(rf"\n({FIELDS}):(.*?)(?=\n\s*\n|\n(?:{FIELDS}):|\Z)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter as written in the source; `default` is source text."""

    annotation: str
    default: str
    required: bool


@dataclass(frozen=True, kw_only=True)
class StrategyInfo:
    """A strategy as its source describes it; `parameters` has the names of the YAML (`from`, not `from_`).

    They are not `complete` where the source does not show all: `**kwargs`, or a base class that cannot be found.
    cost: the syntax of its method of that name, its own or inherited; None where it has none. declared: a class with
    its class attributes.
    """

    name: str
    path: Path
    class_name: str
    doc: str
    parameters: Mapping[str, Parameter]
    complete: bool = True
    cost: ast.FunctionDef | None = None
    declared: type[StandIn] = StandIn

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def family(self) -> str:
        """Which of the families it belongs to: what follows "Family:"; empty where nothing does."""
        return self._field("Family")

    @property
    def source(self) -> str:
        """The paper: what follows "Source:"."""
        return self._field("Source")

    @property
    def experimental(self) -> str:
        """Why its paper's claim is not taken for shown here: what follows "Experimental:"."""
        return self._field("Experimental")

    @property
    def is_strategy(self) -> bool:
        """Whether it is a subclass of Strategy, or may be one as far as its source shows."""
        return self.declared.init is None or issubclass(self.declared, AnyStrategy)

    @property
    def text(self) -> str:
        """The docstring without these."""
        return re.sub(r"\n{3,}", "\n\n", FIELD.sub("", f"\n{self.doc}")).strip()

    def _field(self, name: str) -> str:
        found = [text for field, text in FIELD.findall(f"\n{self.doc}") if field == name]
        return " ".join(found[0].split()) if found else ""


def names() -> list[str]:
    """The strategies that are installed, built-ins and those of other packages."""
    return sorted(entry_points(group=GROUP).names)


def find(name: str) -> StrategyInfo:
    """What the source says about a strategy; UserError if there is none or it cannot be read."""
    path, module, class_name = _locate(name)
    try:
        source = read(path, module)
    except OSError as error:
        raise UserError(f"strategy '{name}': cannot read {path} ({error.strerror})") from None
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise UserError(f"strategy '{name}': {path}{f', line {line}' if line else ''}: not Python: {error}") from None
    if class_name not in source.classes:
        hint = did_you_mean(class_name, source.classes)
        raise UserError(f"strategy '{name}': no class {class_name} in {path}{hint}")
    node = source.classes[class_name]
    meant = stand_in(source, class_name)
    init = meant.init
    for line, wrong in wrong_callbacks(node):
        raise UserError(f"strategy '{name}': {path}, line {line}: {wrong}")
    positional = init is not None and len(init.args.posonlyargs) + len(init.args.args) > 1
    if init is not None and init in node.body and positional:
        raise UserError(
            f"strategy '{name}': {path}, line {init.lineno}: parameters must be keyword-only: "
            "def __init__(self, *, strength: float = 1.0)"
        )
    return StrategyInfo(
        name=name,
        path=path,
        class_name=class_name,
        doc=ast.get_docstring(node) or "",
        parameters=_parameters(init) if init is not None else {},
        complete=init is not None and init.args.kwarg is None and not positional,
        cost=meant.cost,
        declared=meant,
    )


def problems(info: StrategyInfo, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the parameters in a YAML: (parameter, message)."""
    found = []
    for key, value in params.items():
        if key not in info.parameters:
            hint = did_you_mean(key, info.parameters) if info.parameters else " (it has none)"
            if info.complete:
                found.append((key, f"strategy '{info.name}' has no parameter '{key}'{hint}"))
        elif not _fits(value, ast.parse(info.parameters[key].annotation, mode="eval").body):
            wanted = info.parameters[key].annotation
            if re.fullmatch(r"Literal\[[^][]*\]", wanted):
                wanted = " or ".join(wanted[len("Literal[") : -1].split(", "))
            found.append((key, f"strategy '{info.name}': {key} must be {wanted}, not {shown(value)}"))
    for key, parameter in info.parameters.items():
        if parameter.required and key not in params:
            found.append((key, f"strategy '{info.name}' needs the parameter '{key}' ({parameter.annotation})"))
    return found


def refusal(info: StrategyInfo, params: Mapping[str, Any]) -> tuple[str, str] | None:
    """What `__init__` refuses in parameters without `problems`: (parameter, message), or ("", message) where no single
    one is at fault. Not all of an `__init__` can be told from its source: the rest is told when it runs."""
    if (message := _refused(info, params)) is None:
        return None
    optional = [key for key in params if not info.parameters[key].required]
    alone = [key for key in optional if _refused(info, {k: v for k, v in params.items() if k != key}) is None]
    return (alone[0] if alone else ""), message


def _refused(info: StrategyInfo, params: Mapping[str, Any]) -> str | None:
    try:
        info.declared(**arguments(params))
    except UserError as error:
        return str(error)
    except ValueError as error:
        return f"strategy '{info.name}' does not take these parameters: {error}."
    except Exception:  # of a statement that needs more than its source
        return None
    return None


def arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for a strategy's `__init__`: Python's own words get an underscore (`from` -> `from_`)."""
    return {f"{key}_" if keyword.iskeyword(key) else key: value for key, value in params.items()}


def load(name: str) -> type:
    """The class itself, imported; UserError if its file cannot be."""
    try:
        return _entry_point(name).load() if ":" not in name else _loaded(name)
    except UserError:
        raise
    except Exception as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = "; install its package, or name the folder in which it lies in PYTHONPATH"
        raise UserError(f"{told(name, error)}{hint}") from error


def told(name: str, error: Exception) -> str:
    """What went wrong in the file of a strategy, and in which of its lines."""
    path = find(name).path
    inside = [
        each.lineno for each in traceback.extract_tb(error.__traceback__) if Path(each.filename) == path.resolve()
    ]
    line = f", line {inside[-1]}" if inside else ""
    return f"strategy '{name}': {path}{line}: {type(error).__name__}: {error}"


def _loaded(name: str) -> type:
    info = find(name)
    path = info.path.resolve()
    # One module per file, however often it is asked for, so that isinstance holds.
    module_name = f"clmed_strategy_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None, path
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return getattr(sys.modules[module_name], info.class_name)


def _locate(name: str) -> tuple[Path, str, str]:
    """The source file of a strategy, the name of its module (of a file: none) and that of its class."""
    file, colon, class_name = name.rpartition(":")
    if colon or name.endswith(".py"):
        if not file.endswith(".py") or not class_name.isidentifier():
            raise UserError(f"strategy '{name}': a strategy of your own is written my_file.py:ClassName")
        path = Path(os.path.expanduser(file))
        if not path.is_file():
            raise UserError(f"strategy '{name}': no such file: {path} (looked for from {Path.cwd()})")
        return path, "", class_name
    entry = _entry_point(name)
    spec = find_spec(entry.module)
    if spec is None or spec.origin is None:
        raise UserError(f"strategy '{name}': its module {entry.module} is not there; install its package again")
    return Path(spec.origin), entry.module, entry.attr


def _entry_point(name: str) -> EntryPoint:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise UserError(f"no strategy '{name}'{did_you_mean(name, sorted(found))}")
    return found[name]


def _parameters(init: ast.FunctionDef) -> dict[str, Parameter]:
    parameters = {}
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        annotation = argument.annotation
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            text = annotation.value
        else:
            text = ast.unparse(annotation) if annotation else "Any"
        yaml_name = argument.arg[:-1] if keyword.iskeyword(argument.arg[:-1]) else argument.arg
        written = ast.unparse(default) if default else ""
        parameters[yaml_name] = Parameter(annotation=text, default=written, required=default is None)
    return parameters


def _fits(value: Any, annotation: ast.expr) -> bool:
    """Whether a value of the YAML is of the annotated type; a type that cannot be judged from its name fits."""
    match annotation:
        case ast.Name(id="float"):
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case ast.Name(id="int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.Name(id="str" | "bool" | "list" | "dict" as kind):
            return type(value).__name__ == kind
        case ast.Constant(value=None):
            return value is None
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _fits(value, left) or _fits(value, right)
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return value is None or _fits(value, inner)
        case ast.Subscript(value=ast.Name(id="list" | "Sequence"), slice=inner):
            return isinstance(value, list) and all(_fits(item, inner) for item in value)
        case ast.Subscript(value=ast.Name(id="dict" | "Mapping"), slice=ast.Tuple(elts=[keys, values])):
            return isinstance(value, dict) and all(_fits(k, keys) and _fits(v, values) for k, v in value.items())
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            options = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            allowed = [ast.literal_eval(option) for option in options]
            return any(type(value) is type(option) and value == option for option in allowed)
    return True
