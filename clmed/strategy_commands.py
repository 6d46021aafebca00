"""`clmed strategies`: what there is against forgetting, and all about one of them."""

from __future__ import annotations

import ast
import keyword
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clmed.declared import find_spec
from clmed.errors import UserError
from clmed.starting_point import STRATEGY, TEST

if TYPE_CHECKING:
    from clmed.catalogue import Parameter, StrategyInfo


@click.group(invoke_without_command=True)
@click.pass_context
def strategies(context: click.Context) -> None:
    """List the strategies against forgetting, with their parameters, defaults and papers.

    In an experiment file they stand in the section `strategy`, and act in the order given there:

    \b
      strategy:
        replay: {ratio: 0.05, from: [general]}
        my_methods.py:Mine: {strength: 1.0}      # a class of your own

    \b
    Examples:
      clmed strategies                           the list
      clmed strategies show ewc                  all about one: its formula, parameters, cost, and how to write it
      clmed strategies show my_methods.py:Mine   of your own, too
      clmed strategies new my_methods.py         a starting point of your own, with a test
    """
    if context.invoked_subcommand is None:
        _list()


@strategies.command()
@click.argument("name")
def show(name: str) -> None:
    """Print all about the strategy NAME: what it does, its parameters, its cost, its paper, and how to write it.

    NAME is one of `clmed strategies`, or a class of your own as my_file.py:Class.

    \b
    Examples:
      clmed strategies show replay
      clmed strategies show my_methods.py:Mine
    """
    from clmed import catalogue

    info = catalogue.find(name)
    click.echo(f"{name}" + (f" ({info.family})" if info.family else "") + f"\n\n{info.text or 'No docstring.'}\n")
    if info.experimental:
        click.echo(f"Experimental: {info.experimental}\n")
    click.echo(f"Paper: {info.source or 'none given'}")
    click.echo(f"File: {info.path} (class {info.class_name})\n")
    click.echo("Parameters:" + ("" if info.parameters else " none"))
    for key, parameter in info.parameters.items():
        click.echo(f"  {_parameter(key, parameter)}")
    if not info.complete:
        click.echo("  and others that its source does not show")
    click.echo("\nCost beyond plain training, for `clmed plan`:")
    cost = "none" if info.cost is None else ast.get_docstring(info.cost) or ast.unparse(info.cost)
    click.echo("\n".join(f"  {line}" for line in cost.splitlines()))
    click.echo(f"\nIn an experiment file:\n\n{_as_yaml(info)}")


@strategies.command()
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Write FILE, the commented starting point of a strategy of your own, and beside it a test of it.

    It works as it is (a pull towards the old weights); make of it what you have in mind.

    \b
    Examples:
      clmed strategies new my_method.py          writes my_method.py and test_my_method.py
      python -m pytest test_my_method.py
      clmed strategies show my_method.py:MyMethod
    """
    from clmed import catalogue

    class_name = "".join(word.capitalize() for word in file.stem.split("_"))
    words = (file.stem, class_name)
    if file.suffix != ".py" or not all(word.isidentifier() and not keyword.iskeyword(word) for word in words):
        raise UserError(f"{file}: a strategy's file is named like a Python module, such as my_method.py.")
    test = file.with_name(f"test_{file.name}")
    for path in (file, test):
        if path.exists():
            raise UserError(f"{path} is there already; give another name.")
    if find_spec(file.stem) is not None:
        raise UserError(f"{file}: Python has a module `{file.stem}`, which this would hide; give another name.")
    try:
        for path, text in ((file, STRATEGY), (test, TEST)):
            path.write_text(text.replace("my_method", file.stem).replace("MyMethod", class_name), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written ({error.strerror}).") from error
    click.echo(f"{file}\n{test}\n\nIn an experiment file:\n\n{_as_yaml(catalogue.find(f'{file}:{class_name}'))}")


def _list() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from clmed import catalogue

    found: dict[str, list[StrategyInfo]] = {family: [] for family in catalogue.FAMILIES}
    unreadable = []
    for name in catalogue.names():
        try:
            info = catalogue.find(name)
        except UserError as error:  # a broken package of somebody's must not hide the others
            unreadable.append((name, f"cannot be read: {error}"))
            continue
        found.setdefault(info.family or "others", []).append(info)
    table = Table("name", "what it does", "parameters", "paper", box=box.SIMPLE_HEAD, pad_edge=False)
    for family, members in found.items():
        if members:
            table.add_row(Text(family, style="bold"))
        for info in members:
            parameters = [_parameter(key, parameter) for key, parameter in info.parameters.items()]
            # Text, not str: rich would take list[str] for markup.
            marked = Text(info.name + ("\n(experimental)" if info.experimental else ""))
            table.add_row(marked, Text(info.summary), Text("\n".join(parameters)), Text(info.source))
        if members:
            table.add_section()
    for name, message in unreadable:
        table.add_row(name, Text(message))
    Console().print(table)


def _parameter(key: str, parameter: Parameter) -> str:
    return f"{key}: {parameter.annotation} " + ("(required)" if parameter.required else f"= {parameter.default}")


def _as_yaml(info: StrategyInfo) -> str:
    """The section `strategy` with every parameter: its default, or a value of the right kind to be replaced."""
    import yaml

    lines = ["strategy:", f"  {info.name}:" + ("" if info.parameters else " {}")]
    for key, parameter in info.parameters.items():
        value = _example(parameter.annotation) if parameter.required else _literal(parameter.default)
        written = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
        lines.append(f"    {key}: {written}" + ("    # required" if parameter.required else ""))
    return "\n".join(lines)


def _literal(source: str) -> object:
    try:
        return ast.literal_eval(source)
    except ValueError:  # a constant of its module: its name must do
        return source


def _example(annotation: str) -> object:
    """A value of a type, for a parameter without a default."""
    if annotation.startswith("Literal"):
        return ast.literal_eval(annotation.removeprefix("Literal"))[0]
    return {"float": 1.0, "int": 1, "bool": True, "str": "...", "list[str]": ["general"]}.get(annotation, "...")
