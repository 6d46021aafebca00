"""Strategies read from their source without importing it: built-ins, files of one's own, other packages."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from clmed import catalogue
from clmed.catalogue import StrategyInfo
from clmed.declared import CALLBACKS
from clmed.errors import UserError

MINE = '''
"""A module that must not be imported to be described."""
from typing import Literal, Optional
import no_such_module

LIMIT = 3

class Mine:
    """Keep what matters.

    More about it.

    Family: weight space
    Source: Author et al., 2020, "A title",
        arXiv 2001.00001
    Experimental: its gain was not
        seen here.

    Not the source.
    """

    def __init__(
        self, *, ratio: float = 0.05, from_: list[str], past: bool = False, memory: int = 1000,
        mode: Literal["a", "b"] = "a", seed: int | None = None, old: Optional[str] = None,
        shares: dict[str, float] = {}, limit=LIMIT, quoted: "int" = 1,
    ):
        pass

class Bare: ...
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    return f"{tmp_path}/mine.py"


def complaints(name: str, params: dict[str, Any]) -> list[str]:
    return [message for _, message in catalogue.problems(catalogue.find(name), params)]


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_class_is_read_without_being_imported(mine: str) -> None:
    info = catalogue.find(f"{mine}:Mine")
    assert (info.class_name, info.path) == ("Mine", Path(mine))
    assert info.summary == "Keep what matters."
    assert info.source == 'Author et al., 2020, "A title", arXiv 2001.00001'
    assert (info.family, info.experimental) == ("weight space", "its gain was not seen here.")
    assert info.text == "Keep what matters.\n\nMore about it.\n\nNot the source."
    names = ["ratio", "from", "past", "memory", "mode", "seed", "old", "shares", "limit", "quoted"]
    assert list(info.parameters) == names
    assert [name for name in names if info.parameters[name].required] == ["from"]
    assert (info.parameters["ratio"].annotation, info.parameters["ratio"].default) == ("float", "0.05")
    assert (info.parameters["limit"].annotation, info.parameters["limit"].default) == ("Any", "LIMIT")
    assert info.parameters["quoted"].annotation == "int"


def test_a_class_without_init_has_no_parameters(mine: str) -> None:
    info = catalogue.find(f"{mine}:Bare")
    assert (info.parameters, info.summary, info.source) == ({}, "", "")
    assert complaints(info.name, {"a": 1}) == [f"strategy '{info.name}' has no parameter 'a' (it has none)"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ratio": 1, "memory": 5, "past": True},
        {"mode": "b", "seed": None, "old": None},
        {"seed": 3, "old": "x", "shares": {"a": 0.5, "b": 1}, "limit": object()},
    ],
)
def test_parameters_that_fit(mine: str, params: dict[str, Any]) -> None:
    assert complaints(f"{mine}:Mine", {"from": ["general"], **params}) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ration": 0.1}, "has no parameter 'ration'; did you mean 'ratio'?"),
        ({"from_": ["general"]}, "has no parameter 'from_'; did you mean 'from'?"),
        ({"from": "general"}, 'from must be list[str], not "general"'),
        ({"from": ["general", 1]}, 'from must be list[str], not ["general", 1]'),
        ({"ratio": "much"}, 'ratio must be float, not "much"'),
        ({"ratio": True}, "ratio must be float, not true"),
        ({"ratio": float("nan")}, "ratio must be float, not NaN"),
        ({"memory": 0.5}, "memory must be int, not 0.5"),
        ({"memory": True}, "memory must be int, not true"),
        ({"past": 1}, "past must be bool, not 1"),
        ({"mode": "c"}, "mode must be 'a' or 'b', not \"c\""),
        ({"seed": "x"}, "seed must be int | None"),
        ({"old": 1}, "old must be Optional[str]"),
        ({"shares": {"a": "b"}}, "shares must be dict[str, float]"),
        ({"quoted": "1"}, "quoted must be int"),
    ],
)
def test_parameters_that_do_not_fit(mine: str, params: dict[str, Any], message: str) -> None:
    (told,) = complaints(f"{mine}:Mine", {"from": ["general"], **params})
    assert message in told


def test_all_mistakes_are_told_at_once(mine: str) -> None:
    told = complaints(f"{mine}:Mine", {"a": 1, "past": "x"})
    assert len(told) == 3
    assert told[-1].endswith("needs the parameter 'from' (list[str])")


INHERITING = """
from dataclasses import dataclass
import clmed.strategies.replay as rehearsal
import no_such_module
from clmed.strategies import ewc
from clmed.strategies.ewc import EWC
from clmed.strategies.naive import Naive
from clmed.strategy import Strategy
from no_such_module import Gone
from avalanche.training.plugins import ReplayPlugin
from loop import Circle

class Direct(EWC): ...
class Twice(Direct): "No parameters of its own."
class Dotted(ewc.EWC): ...
class Renamed(rehearsal.Replay): ...
class Mixin(Strategy): ...
class Mixed(Mixin, EWC): ...
class Own(EWC):
    def __init__(self, *, mine: int): ...
class Deeper(Own): ...
class Plain(Naive): ...
class EWC(EWC): ...
class Passing(EWC):
    def __init__(self, *, mine: int, **rest): ...
class Missing(Gone): ...
class Computed(no_such_module.make(1)): ...
class Undefined(Nowhere): ...
class Itself(Itself): ...
class Round(Circle): ...
class Foreign(ReplayPlugin): ...
@dataclass
class Data(Strategy):
    ratio: float = 0.5
"""
UNKNOWN: tuple[list[str], bool] = ([], False)


def test_parameters_are_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heirs.py").write_text(INHERITING)
    (tmp_path / "loop.py").write_text("from loop import Circle\n")
    monkeypatch.syspath_prepend(tmp_path)
    of_ewc, of_replay = ((list(catalogue.find(name).parameters), True) for name in ("ewc", "replay"))
    expected = {
        **dict.fromkeys(["Direct", "Twice", "Dotted", "Mixed", "EWC"], of_ewc),
        "Renamed": of_replay,
        **dict.fromkeys(["Own", "Deeper"], (["mine"], True)),
        **dict.fromkeys(["Mixin", "Plain"], ([], True)),
        "Passing": (["mine"], False),
        **dict.fromkeys(["Missing", "Computed", "Undefined", "Itself", "Round", "Foreign", "Data"], UNKNOWN),
    }
    found = {name: catalogue.find(f"{tmp_path}/heirs.py:{name}") for name in expected}
    assert {name: (list(info.parameters), info.complete) for name, info in found.items()} == expected
    assert complaints(f"{tmp_path}/heirs.py:Missing", {"anything": 1}) == []
    assert "'strenth'; did you mean 'strength'?" in complaints(f"{tmp_path}/heirs.py:Mixed", {"strenth": 1})[0]
    assert "needs the parameter 'mine'" in complaints(f"{tmp_path}/heirs.py:Passing", {"strength": 1})[0]


def test_python_inherits_the_same(tmp_path: Path) -> None:
    """The rules for several bases, against Python's own answer; bases of a package, over relative imports."""
    package = tmp_path / "family"
    package.mkdir()
    (package / "__init__.py").write_text("from .old import Root as Ancestor\n")
    (package / "old.py").write_text("class Root:\n    def __init__(self, *, root=1): ...\n")
    (package / "young.py").write_text(
        "from . import old\nfrom family import Ancestor\nfrom .old import Root\n"
        "class Left(Ancestor): ...\n"
        "class Right(old.Root):\n    def __init__(self, *, right=1): ...\n"
        "class Both(Left, Right): ...\n"
    )
    (tmp_path / "user.py").write_text("from family.young import *\nfrom family.young import Both, Left\n")
    (tmp_path / "mine.py").write_text("from user import Both, Left\nclass A(Both): ...\nclass B(Left): ...\n")
    code = (
        f"import inspect, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from clmed import catalogue\n"
        f"read = [list(catalogue.find({str(tmp_path / 'mine.py')!r} + ':' + name).parameters) for name in 'AB']\n"
        "assert 'family' not in sys.modules\n"
        "import mine\n"
        "assert read == [[*inspect.signature(each).parameters] for each in (mine.A, mine.B)] == [['right'], ['root']]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reply", "no strategy 'reply'; did you mean 'replay'?"),
        ("zzz", "no strategy 'zzz' (known: "),
        ("mine.py", "is written my_file.py:ClassName"),
        ("mine:Mine", "is written my_file.py:ClassName"),
        ("mine.py:", "is written my_file.py:ClassName"),
        ("missing.py:Mine", "no such file: missing.py"),
        ("mine.py:Min", "no class Min in mine.py; did you mean 'Mine'?"),
        ("broken.py:Mine", "broken.py, line 2: not Python"),
        ("positional.py:Mine", "positional.py, line 2: parameters must be keyword-only"),
    ],
)
def test_strategies_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("broken.py").write_text("class Mine:\n  def (\n")
    Path("positional.py").write_text("class Mine:\n    def __init__(self, ratio=1): ...\n")
    assert message in refusal(catalogue.find, name)


def test_a_class_of_ones_own_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "class Own:\n    def __init__(self, *, from_: list[str]):\n        self.names = from_\n"
    )
    loaded = catalogue.load(f"{tmp_path}/own.py:Own")
    assert loaded(**catalogue.arguments({"from": ["a"]})).names == ["a"]
    assert catalogue.load(f"{tmp_path}/../{tmp_path.name}/own.py:Own") is loaded
    assert sys.modules[loaded.__module__].Own is loaded


def test_a_module_that_fails_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("\nimport no_such_module\nclass Late: ...\n")
    for _ in range(2):
        told = refusal(catalogue.load, f"{tmp_path}/late.py:Late")
        assert "late.py, line 2: ModuleNotFoundError: No module named 'no_such_module'; install" in told


def test_another_package_is_found_without_being_imported(tmp_path: Path) -> None:
    """An installed distribution with an entry point, whose packages raise when they are imported."""
    package, metadata = tmp_path / "elsewhere/methods", tmp_path / "elsewhere-1.0.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "mine.py").write_text(MINE)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[clmed.strategies]\nmine = elsewhere.methods.mine:Mine\ngone = elsewhere.methods.gone:Gone\n"
    )
    code = dedent(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from clmed import catalogue
        assert "mine" in catalogue.names()
        print(catalogue.find("mine").path)
        try:
            catalogue.find("gone")
        except catalogue.UserError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path, error = done.stdout.splitlines()
    assert path == str(package / "mine.py")
    assert error == "strategy 'gone': its module elsewhere.methods.gone is not there; install its package again"


@pytest.mark.parametrize("name", sorted(entry_points(group=catalogue.GROUP).names))
def test_built_ins_describe_themselves(name: str) -> None:
    info: StrategyInfo = catalogue.find(name)
    assert info.summary.endswith(".")
    assert info.source
    assert info.family in catalogue.FAMILIES, "a line `Family: ...` in its docstring"
    assert info.path.parent.name == "strategies"
    assert all(parameter.annotation != "Any" for parameter in info.parameters.values())


def test_reading_all_built_ins_imports_none() -> None:
    code = (
        "import sys; from clmed import catalogue\n"
        "for name in catalogue.names(): catalogue.find(name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'avalanche') or 'strategies' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_method_that_nothing_can_call_is_told(tmp_path: Path) -> None:
    from avalanche.core import BaseSGDPlugin

    callbacks = {name for name in dir(BaseSGDPlugin) if name.startswith(("before_", "after_"))}
    assert set(CALLBACKS) == callbacks
    for name, words in (("after_backwards", "line 2: nothing calls `after_backwards`; did you mean 'after_backward'?"),
                        ("before_trainig_exp", "did you mean 'before_training_exp'?")):  # fmt: skip
        (tmp_path / "my.py").write_text(f"class Mine:\n    def {name}(self, trainer): ...\n")
        assert words in refusal(catalogue.find, f"{tmp_path}/my.py:Mine")
    (tmp_path / "my.py").write_text("class Mine:\n    def after_training_exp(self): ...\n")
    assert "line 2: it is called with the trainer: def after_training" in refusal(
        catalogue.find, f"{tmp_path}/my.py:Mine"
    )
    methods = "".join(f"    def {name}(self, trainer): ...\n" for name in (*CALLBACKS, "after_lunch"))
    (tmp_path / "my.py").write_text(f"class Mine:\n{methods}")
    assert catalogue.find(f"{tmp_path}/my.py:Mine").class_name == "Mine"
