"""`clmed strategies`: the list, all about one."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from clmed import catalogue, cli
from clmed.catalogue import StrategyInfo


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
