"""YAML as plain data plus the place (file and line) of every key, so that an error can say where it was written.

`extends: base.yaml` (or a list: later files win) lies underneath the file that says it: mappings are merged key by key,
everything else, lists too, is replaced. Overrides `a.b.c=value` of the command line come last.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clmed.complaints import Loc, Places, did_you_mean
from clmed.errors import UserError

DEEPEST = 100  # levels of nesting; what reads or writes the configuration goes down by recursion
COMMAND_LINE = "command line"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The data of a YAML text, and the place of every key and list item in it; `()` is the text itself."""

    data: Any
    places: Places


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice (YAML's own rule; PyYAML silently keeps the last)."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in first:
                problem = f"the key '{key.value}' is written twice (first in line {first[key.value]})"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            first[key.value] = key.start_mark.line + 1
        return node


class _Dumper(yaml.SafeDumper):
    pass


# YAML 1.1 reads 1e-5 as text because it has no dot; people mean a number. The dumper must know, to quote such text.
_EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))


def dump(data: Any) -> str:
    """`data` as YAML that `read` gives back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read(path: Path, overrides: Sequence[str] = (), given: str = COMMAND_LINE) -> Tree:
    """The mapping in the file, with what it extends and the overrides; UserError names the file and the line.

    given: what an error calls the place of the overrides.
    """
    tree = _read_file(path, above=())
    for override in overrides:
        tree = _override(tree, override, given)
    return tree


def _read_file(path: Path, above: tuple[Path, ...]) -> Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None

    tree = _parse(text, lambda line: f"{path}, line {line + 1}")
    if not isinstance(tree.data, dict):
        found = "is empty" if tree.data is None else f"holds a {type(tree.data).__name__}"
        raise UserError(f"{path}: {found}, but a configuration is a mapping (lines of `key: value`)")
    data = dict(tree.data)
    parents = data.pop("extends", None) or []
    place = tree.places.get(("extends",), str(path))
    tree = Tree(
        data=data, places={(): str(path), **{loc: at for loc, at in tree.places.items() if loc[0] != "extends"}}
    )

    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"{place}: extends must be the name of a file or a list of names")
    under = Tree(data={}, places={})
    for parent in (Path(os.path.normpath(path.parent / os.path.expanduser(name))) for name in parents):
        above_parent = (*above, path)
        if parent.resolve() in [file.resolve() for file in above_parent]:
            circle = " -> ".join(str(file) for file in (*above_parent, parent))
            raise UserError(f"{place}: extends goes in a circle: {circle}")
        if not parent.is_file():
            raise UserError(f"{place}: extends '{parent}', but there is no such file")
        under = _merge(under, _read_file(parent, above_parent))
    return _merge(under, tree)


def _parse(text: str, place: Callable[[int], str]) -> Tree:
    """One YAML document; `place` turns a line (from 0) into words."""
    places: Places = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else _build(loader, node, (), places, place, above=())
    except RecursionError:
        raise UserError(f"{place(0)}: malformed YAML: nested too deeply") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise UserError(f"{place(line)}: malformed YAML: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" ({error.context})" if error.context and error.problem else ""
        raise UserError(f"{place(mark.line if mark else 0)}: malformed YAML: {error.problem}{context}") from None
    return Tree(data=data, places=places)


def _build(
    loader: _Loader,
    node: yaml.Node,
    loc: Loc,
    places: Places,
    place: Callable[[int], str],
    above: tuple[yaml.Node, ...],
) -> Any:
    """The plain value of a node; the places of all that is in it are added to `places`."""
    here = place(node.start_mark.line)
    if any(node is other for other in above):
        raise UserError(f"{here}: malformed YAML: an alias that contains itself")
    if len(above) == DEEPEST:
        raise UserError(f"{here}: malformed YAML: nested too deeply")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            places[*loc, index] = place(item.start_mark.line)
            items.append(_build(loader, item, (*loc, index), places, place, above))
        return items
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError, AttributeError):  # how PyYAML fails on 2024-99-99, !!bool x, !!timestamp x
            kind = node.tag.rpartition(":")[2]
            raise UserError(f"{here}: malformed YAML: {node.value!r} is no {kind} (for text, use quotes)") from None

    loader.flatten_mapping(node)  # the merge key <<
    mapping = {}
    for key_node, value_node in node.value:
        key = _build(loader, key_node, loc, {}, place, above)
        if not isinstance(key, str):
            at = place(key_node.start_mark.line)
            raise UserError(
                f"{at}: the key {key_node.value or key!r} is read as {key!r}, not as text: put it in quotes"
            )
        places[*loc, key] = place(key_node.start_mark.line)
        mapping[key] = _build(loader, value_node, (*loc, key), places, place, above)
    return mapping


def _merge(under: Tree, over: Tree) -> Tree:
    """`over` laid on `under`: mappings key by key, everything else replaced whole."""
    places = dict(under.places)

    def lay(below: Any, above: Any, loc: Loc) -> Any:
        if isinstance(below, dict) and isinstance(above, dict):
            both = {key: lay(below[key], above[key], (*loc, key)) for key in above if key in below}
            return {**below, **above, **both}
        for hidden in [at for at in places if at[: len(loc)] == loc]:
            del places[hidden]
        return above

    data = lay(under.data, over.data, ())
    return Tree(data=data, places={**places, **over.places})


def _override(tree: Tree, text: str, given: str) -> Tree:
    """The tree with `key=value` set; the value is YAML and replaces what was there."""
    key, sign, value = text.partition("=")
    segments = key.strip().split(".")
    if not sign or not all(segments) or not value.strip():
        raise UserError(f"{given}: '{text}' is not of the form key=value, such as seed=1 or stream.0.optimizer.lr=1e-4")
    parsed = _parse(value, lambda line: f"{given}: '{text}'")
    loc = _locate(tree.data, segments, f"{given}: '{text}'")
    places = {at: place for at, place in tree.places.items() if at[: len(loc)] != loc}
    places |= {loc[:n]: given for n in range(len(loc)) if loc[:n] not in places}  # sections that it makes
    places |= {loc: given} | {(*loc, *at): given for at in parsed.places}
    return Tree(data=_set(tree.data, loc, parsed.data), places=places)


def _locate(data: Any, segments: list[str], at: str) -> Loc:
    """The way that the dotted key of an override goes through the data.

    A key of the data may hold dots itself (`strategy.my_file.py:Mine.strength=1`), so the longest known one is taken.
    An unknown key of a mapping is let through: the schema says whether it may be there.
    """
    loc: Loc = ()
    while segments:
        known: dict[str, str | int]
        if isinstance(data, list):
            known = {str(index): index for index in range(len(data))}
            known |= {str(item["name"]): i for i, item in enumerate(data) if isinstance(item, dict) and "name" in item}
        elif isinstance(data, dict) or data is None:
            known = {name: name for name in data or {}}
        else:
            way = ".".join(map(str, loc))
            raise UserError(f"{at}: {way} is {data!r}, which has no keys")
        count = next((n for n in range(len(segments), 0, -1) if ".".join(segments[:n]) in known), 0)
        if count == 0 and isinstance(data, list):
            way = ".".join(map(str, loc))
            raise UserError(f"{at}: {way} has no item '{segments[0]}'{did_you_mean(segments[0], known)}")
        step = known[".".join(segments[:count])] if count else segments[0]
        data = data[step] if count and data is not None else None
        loc, segments = (*loc, step), segments[max(count, 1) :]
    return loc


def _set(data: Any, loc: Loc, value: Any) -> Any:
    """A copy of `data` with `value` at `loc`; sections that are missing on the way are made."""
    if not loc:
        return value
    if isinstance(data, list):
        return [_set(item, loc[1:], value) if index == loc[0] else item for index, item in enumerate(data)]
    section = data or {}
    return {**section, loc[0]: _set(section.get(loc[0]), loc[1:], value)}
