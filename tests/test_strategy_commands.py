"""`clmed strategies`: the list, all about one, a new one; and strategies of other packages in a run."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from clmed import catalogue, cli
from clmed.catalogue import StrategyInfo
from clmed.errors import UserError


def told(*arguments: str) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli.commands, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_strategies_stand_by_family_and_experimental_ones_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = told("strategies").splitlines()
    heads = [line.strip() for line in lines if line.strip() in catalogue.FAMILIES]
    assert heads == [family for family in catalogue.FAMILIES if family in heads] and len(heads) >= 3
    order = ["references", "naive", "data", "replay", "regularisation", "ewc"]
    places = [next(i for i, line in enumerate(lines) if line.split()[:1] == [word]) for word in order]
    assert places == sorted(places)
    own = StrategyInfo(name="mine", path=tmp_path, class_name="Mine", doc="Do.\nExperimental: no.", parameters={})
    monkeypatch.setattr(catalogue, "names", lambda: ["mine"])
    monkeypatch.setattr(catalogue, "find", lambda name: own)
    listed = told("strategies")
    assert "others" in listed and "mine" in listed and "(experimental)" in listed


def test_show_tells_all_about_a_strategy_and_its_yaml_is_valid(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import Literal\nfrom clmed.strategies.ewc import EWC\nTIMES = 3\n"
        'class Mine(EWC):\n    """Do it.\n\n    w <- w / 2\n\n    Experimental: never seen.\n    """\n'
        "    def __init__(self, *, kind: Literal['a', 'b'], from_: list[str], n: int | None = None, m: int = TIMES): 0"
    )
    for name, words in (
        ("ewc", ["ewc (regularisation)", "strength/2 * sum_i", "fisher_from: list[str] (required)", "1612.00796",
                 "ewc.py (class EWC)", "rows whose gradients make the Fisher"]),
        ("naive", ["Parameters: none", "plan`:\n  none", "naive: {}"]),
        (f"{tmp_path}/mine.py:Mine", ["w <- w / 2", "Experimental: never seen.", "m: int = TIMES", "Paper: none given",
                                      "rows whose gradients make the Fisher"]),
    ):  # fmt: skip
        shown = told("strategies", "show", name)
        assert not [word for word in words if word not in shown], shown
        info = catalogue.find(name)
        (given,) = yaml.safe_load(shown[shown.index("strategy:\n") :])["strategy"].values()
        assert list(given) == list(info.parameters)
        given.pop("m", None)  # its default is a constant of the module
        assert catalogue.problems(info, given) == []


def test_a_new_strategy_is_tested_and_runs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, make_model: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = told("strategies", "new", "old_friend.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_old_friend.py"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout
    given = yaml.safe_load(printed[printed.index("strategy:\n") :])["strategy"]
    assert given == {"old_friend.py:OldFriend": {"strength": 0.01}}
    assert_runs(given, {"old_friend.py:OldFriend": {"strength": 100.0}}, tokenizer, make_model)
    others = ("new-one.py", "_.py", "class.py", "none.py")
    for name, message in (
        ("old_friend.py", "is there already"),
        ("statistics.py", "which this would hide"),
        *((name, "named like a Python module") for name in others),
    ):
        with pytest.raises(UserError, match=message):
            told("strategies", "new", name)


def assert_runs(given: dict[str, Any], stronger: dict[str, Any], tokenizer: Any, make_model: Any) -> None:
    """It trains, and its parameter matters."""
    from clmed.training.sharding import World
    from tests.small import full_state, make_trainer, small_config

    weights = []
    for strategy in (given, stronger):
        config = small_config(strategy, evaluation={"gain": [], "retention": []})
        trainer = make_trainer(config, make_model(1), tokenizer, World())
        trainer.train(trainer.stream[:1])
        weights.append(full_state(trainer.model))
    assert any(not weights[0][name].allclose(weights[1][name], atol=1e-5) for name in weights[0])


def test_a_strategy_of_another_package_trains_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any, make_model: Any
) -> None:
    """A small distribution with an entry point, as pip would have installed it."""
    metadata = tmp_path / "kindness-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "kindness").mkdir()
    (tmp_path / "kindness/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    told("strategies", "new", "kindness/gentle.py")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kindness\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[clmed.strategies]\ngentle = kindness.gentle:Gentle\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "gentle" in catalogue.names() and "class Gentle" in told("strategies", "show", "gentle")
    assert_runs({"gentle": {}}, {"gentle": {"strength": 100.0}}, tokenizer, make_model)
