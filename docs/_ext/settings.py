"""The directive `settings`: every key of a section of the configuration, from the schema itself.

    ```{settings} clmed.config.TrainingConfig
    :title: The whole file
    ```

A section that several keys lead to is described once, under the shortest of them; the others say where.
"""

import inspect
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx

from clmed.config.sections import Section
from clmed.quantities import Quantity

NAMES: dict[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any"}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


class Settings(Directive):
    """A heading and a table for a section, and for each that is in it."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"title": directives.unchanged_required}
    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """The tables, parsed as Markdown."""
        module, _, name = self.arguments[0].rpartition(".")
        section = getattr(import_module(module), name)
        lines = list(told(section, "", self.options["title"], places(section)))
        found = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), 0, found, match_titles=True)
        return found.children


def places(root: type[Section]) -> dict[type[Section], str]:
    """Where each section is described: under the key that needs the fewest steps; `stream[].optimizer`."""
    found, waiting = {root: ""}, [root]
    for section in waiting:  # which grows meanwhile: those of one step, then those of two
        for name, field in section.model_fields.items():
            inner, many = section_of(field.annotation)
            if inner is not None and inner not in found:
                found[inner] = ".".join(filter(None, [found[section], (field.alias or name) + many]))
                waiting.append(inner)
    return found


def told(section: type[Section], at: str, title: str, where: dict[type[Section], str]) -> Iterator[str]:
    """The Markdown of a section that stands at a key, then of those below it; title: of the whole file."""
    yield f"## `{at}`" if at else f"## {title}"
    yield ""
    yield from (inspect.getdoc(section) or "").splitlines()
    yield from ("", "| key | value | default |", "|---|---|---|")
    below = []
    for name, field in section.model_fields.items():
        key = field.alias or name
        inner, many = section_of(field.annotation)
        here = ".".join(filter(None, [at, key + many]))
        elsewhere = f", as `{where[inner]}`" if inner is not None and where[inner] != here else ""
        yield f"| `{key}` | {kind(field)}{elsewhere} | {default(field)} |"
        if inner is not None and not elsewhere:
            below.append((inner, here))
    yield ""
    for inner, place in below:
        yield from told(inner, place, title, where)


def section_of(annotation: Any) -> tuple[type[Section] | None, str]:
    """The section in an annotation, and how a place in a list or a mapping of them is written."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, ""
    many = {list: "[]", dict: ".<name>"}.get(get_origin(annotation) or NoneType, "")
    for inner in get_args(annotation):
        found, _ = section_of(inner)
        if found is not None:
            return found, many
    return None, ""


def kind(field: FieldInfo) -> str:
    """What a key takes, in words."""
    return ", ".join([words(field.annotation, field.metadata), *limits(field.metadata)])


def limits(metadata: Iterable[Any]) -> list[str]:
    """The bounds among what an annotation says besides the type."""
    return [limit(str(each)) for each in metadata if type(each).__name__ in ("Gt", "Ge", "Lt", "Le", "MinLen")]


def limit(bound: str) -> str:
    """`Gt(gt=0)` as `> 0`."""
    name, _, value = bound.partition("(")[2].rstrip(")").partition("=")
    if name == "min_length":
        return "not empty"
    return f"{SIGNS[name]} {value}"


def words(annotation: Any, metadata: Any = ()) -> str:
    """A type, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Quantity or any(each in get_args(Quantity) for each in metadata):
        return "quantity (`750M`)"
    if origin is Annotated:
        flat = [inner for each in arguments[1:] for inner in getattr(each, "metadata", None) or [each]]
        return ", ".join([words(arguments[0], arguments[1:]), *limits(flat)])
    if origin is Literal:
        return " · ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(words(each) for each in arguments if each is not NoneType)
    if origin is list:
        return f"list of: {words(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)} numbers"
    if origin is dict:
        return f"by name: {words(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default(field: FieldInfo) -> str:
    """As it would be written; nothing for what has none."""
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "*required*"
    if value is None or isinstance(value, Section):
        return ""
    return f"`{value}`" if not isinstance(value, bool) else f"`{str(value).lower()}`"


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
