"""Which strategies can stand beside each other: every ordered pair, what is said of those that cannot, and that the
others train."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from clmed import catalogue, combinations
from clmed.config import ExperimentConfig
from clmed.errors import UserError
from clmed.strategy import make_strategies
from clmed.validation import load
from tests.configs import complaint, make_folder

PARAMETERS: dict[str, dict[str, Any]] = {
    "naive": {}, "frozen": {}, "joint": {"general_epochs": 0.5},
    "replay": {"from": ["english", "past"], "ratio": 0.25, "memory": 19},
    "interleave": {"every": 3, "from": ["chinese"]},
    "self_synthesis": {"ratio": 0.25, "rows": 3},
    "ewc": {"fisher_from": ["english"], "rows": 3}, "l2": {}, "agem": {"from": ["english"], "memory": 9, "rows": 2},
    "distill": {}, "der": {"from": ["english", "past"], "memory": 9, "top": 7},
    "lora": {"rank": 4}, "olora": {"rank": 4}, "osft": {}, "block_expansion": {"every": 2}, "freeze": {"layers": 1},
    "average": {}, "soup": {}, "ema": {"decay": 0.5}, "merge": {},
    "rewarm": {"from": ["english"], "ratio": 0.25},
    "curriculum": {"of": ["medical"], "reference": ["exam"], "keep": 0.5},
}  # fmt: skip
STRUCTURE = {"lora", "olora", "osft", "block_expansion", "freeze"}
WEIGHTS = {"average", "soup", "ema", "merge"}
ADAPTERS = {"lora", "olora"}
NO_DECAY = ["stream.0.optimizer.weight_decay=0", "stream.1.optimizer.weight_decay=0"]
ADDING = {"replay", "rewarm", "interleave", "self_synthesis", "der"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_folder(tmp_path, monkeypatch)


def senseless(first: str, second: str) -> bool:
    """What has been found of each pair by trying it, in two experiences."""
    pair = {first, second}
    return (
        "frozen" in pair
        or pair == {"replay", "rewarm"}
        or (second == "joint" and first in ADDING)
        or pair <= STRUCTURE
        or pair <= {"average", "ema", "merge"}
        or pair == {"soup", "ema"}
        or (bool(pair & ADAPTERS) and bool(pair & {*WEIGHTS, "ewc"}))
        or (first, second) == ("merge", "ewc")
    )


def refused(config: ExperimentConfig, *names: str) -> list[str]:
    chosen = config.model_copy(update={"strategy": {name: PARAMETERS[name] for name in names}})
    return [message for _, message in combinations.problems(chosen, [catalogue.find(name) for name in names])]


def test_every_ordered_pair(folder: Path) -> None:
    assert sorted(PARAMETERS) == catalogue.names()
    config = load("base.yaml", NO_DECAY)
    one = config.model_copy(update={"stream": config.stream[:1]})
    for first, second in permutations(PARAMETERS, 2):
        assert bool(refused(config, first, second)) == senseless(first, second), (first, second)
        if {first, second} & ADAPTERS and "ewc" in (first, second):  # within one experience the weights stay the same
            assert not refused(one, first, second)
            assert not refused(config, "joint", first, second)  # which is one
    alone = load("base.yaml", ["stream.0.optimizer.weight_decay=0"])  # joint has the settings of the first
    assert refused(alone, "l2", "naive") and not refused(alone, "joint", "l2")


@pytest.mark.parametrize(
    ("strategy", "line", "message"),
    [
        (
            "{replay: {from: [general]}, joint: }",
            20,
            "strategy 'replay' must come after 'joint' (strategies act in the",
        ),
        (
            "\n  freeze:\n  osft:",
            22,
            "strategies 'freeze' and 'osft' both decide which weights are trained: choose one",
        ),
        (
            "\n  lora:\n  average:",
            22,
            "'average' puts together old and new weights, but 'lora' trains two factors of them",
        ),
        (
            "\n  lora:\n  ewc: {fisher_from: [general]}",
            22,
            "'ewc' compares weights of one experience with those of the",
        ),
        (
            "\n  naive:\n  frozen:",
            22,
            "strategy 'frozen' trains nothing, so that 'naive' beside it has no effect: leave",
        ),
        ("{l2: }", 15, "stream[0].optimizer.weight_decay is 0.1; strategy 'l2' needs 0: write `weight_decay: 0` there"),
        (
            "\n  interleave: {from: [general]}\n  replay:\n    from:\n    - general",
            24,
            "strategy.replay.from[0]: 'interleave' gives 'general' steps of its own, so 'replay' cannot give it a part",
        ),
        ("{distill: {from: [general]}}", 20, "strategy.distill.from[0]: nothing trains 'general': put it into `from`"),
        (
            "\n  curriculum:\n    of: [exams]\n    reference: [general]",
            22,
            "of: no source 'exams' in data; did you mean",
        ),
        (
            "\n  curriculum:\n    of: [general]\n    reference: [exam]",
            22,
            "strategy.curriculum.of[0]: no experience trains 'general': name one of those that are (",
        ),
        ("\n  joint:\n    general_epochs: -1", 22, "joint needs `general_epochs` of at least 0"),
        ("\n  replay:\n    from: [general]\n    ratio: 1.5", 23, "replay needs 0 <= `ratio` < 1"),
        ("\n  rewarm:\n    from: [general]\n    ratio: 1.5", 23, "replay needs 0 <= `ratio` < 1"),  # its base class's
        ("\n  olora:\n    rank: 2\n    strength: -1", 23, "olora needs a `strength` of at least 0"),
        ("\n  lora:\n    rank: 2\n    targets: []", 23, "lora needs a `rank`"),
        ("\n  replay:\n    select: balanced\n    from: [general]", 22, "so `from` must name `past`"),
        ("\n  der:\n    from: []", 21, "der needs"),  # a parameter that must be there cannot be left out
    ],
)
def test_what_cannot_be_is_told_with_its_line(folder: Path, strategy: str, line: int, message: str) -> None:
    text = (folder / "base.yaml").read_text().replace("strategy:", f"strategy: {strategy}")
    (folder / "base.yaml").write_text(text)
    told = next(each for each in complaint().split("\n") if message in each)
    assert told.startswith(f"base.yaml, line {line}: "), told


def test_a_source_does_not_have_the_name_of_one_that_a_strategy_makes(folder: Path) -> None:
    text = (folder / "base.yaml").read_text()
    for name, strategy in (("self_synthesis", "{self_synthesis: }"), ("der-memory", "{der: {from: [encyclopedia]}}")):
        renamed = text.replace("general", name).replace(f"{name}.jsonl", "general.jsonl")
        (folder / "base.yaml").write_text(renamed)
        load("base.yaml")
        (folder / "base.yaml").write_text(renamed.replace("strategy:", f"strategy: {strategy}"))
        line = renamed[: renamed.index(f"  {name}: ")].count("\n") + 1
        told = f"base.yaml, line {line}: the name '{name}' means what strategy '{strategy[1:].split(':')[0]}' makes"
        assert told in complaint()


def test_an_optimizer_is_not_carried_to_other_weights(folder: Path) -> None:
    told = complaint("strategy={lora: }", "stream.1.optimizer.state=carry")
    assert (
        told
        == "command line: stream[1].optimizer.state is carry; strategy 'lora' needs reset: write `state: reset` there"
    )


MINE = """
from clmed.errors import UserError
from clmed.strategies.ewc import EWC
from clmed.strategy import Strategy
import no_such_module

LEAST, MOST = 1, 9

class Mine(Strategy):
    decides = ("which weights are trained",)
    follows: tuple[str, ...] = ("replay",)

    def __init__(self, *, size: int = LEAST, kind=no_such_module.DEFAULT):
        self.size = size
        if size > MOST or no_such_module.is_wrong(size):
            raise ValueError(f"{size} is above {MOST}")

class Plain(Strategy):
    def __init__(self, *, size: int = LEAST):
        if not LEAST <= size <= MOST:
            raise ValueError(f"{size} is not between {LEAST} and {MOST}")

class Held(EWC): ...

class Nothing: ...

class Late(Strategy):
    def __init__(self, *, size: int = 1):
        self.half = self.whole / 2
"""


def test_strategies_of_one_s_own(folder: Path) -> None:
    """Declared and refused like the built-ins; what only the running file could tell is left to it."""
    (folder / "my.py").write_text(MINE)
    told = complaint("strategy={my.py:Mine: {size: 99}, lora: , replay: {from: [general]}, my.py:Held: {rows: 0}}")
    assert "strategies 'my.py:Mine' and 'lora' both decide" in told and "'my.py:Mine' must come after 'replay'" in told
    assert "strategy 'my.py:Held' needs the parameter 'fisher_from'" in told and "above" not in told
    told = complaint("strategy={my.py:Plain: {size: 99}, my.py:Held: {rows: 0, fisher_from: [general]}}")
    assert "strategy 'my.py:Plain' does not take these parameters: 99 is not between 1 and 9." in told
    assert "ewc needs" in told
    told = complaint("strategy={my.py:Nothing: }")
    assert "Nothing in my.py is no strategy, so nothing calls it: subclass `Strategy` of clmed.strategy" in told
    (folder / "my.py").write_text(MINE.replace("import no_such_module", "").replace("no_such_module.DEFAULT", "1"))
    with pytest.raises(UserError, match=r"my.py, line 29: AttributeError: 'Late' object has no attribute 'whole'"):
        make_strategies(load("base.yaml", ["strategy={my.py:Late: }"]))


def test_a_run_does_not_go_on_with_another_file(folder: Path) -> None:
    """Its defaults are parameters, too. A strategy of clmed's own is known by clmed's version."""
    from clmed.lifetime import own_files, refuse_changed
    from clmed.results.rundir import RunDirectory

    def made() -> list[Any]:
        return make_strategies(load("base.yaml", ["strategy={my.py:Held: {fisher_from: [general]}, l2: }", *NO_DECAY]))

    (folder / "my.py").write_text("from clmed.strategies.ewc import EWC\nclass Held(EWC): ...\n")
    began = own_files(made())
    assert list(began) == ["my.py"]
    run = RunDirectory.create(folder / "run", "name: run", {"strategies": began})
    refuse_changed(run, made())
    (folder / "my.py").write_text((folder / "my.py").read_text() + "# another\n")
    with pytest.raises(UserError, match=r"was begun with another my.py.*--overwrite"):
        refuse_changed(run, made())
    refuse_changed(RunDirectory(folder / "none"), made())


@pytest.mark.full
def test_every_other_pair_trains(folder: Path, tokenizer: Any, make_model: Any) -> None:
    import torch

    from clmed.training.sharding import World
    from tests.small import full_state, make_trainer, small_config

    optimizer = {"lr": 1e-3, "weight_decay": 0.0}
    stream = [{"name": name, "data": name, "tokens": 2000, "optimizer": optimizer} for name in ("medical", "exam")]

    def trained(*names: str) -> dict[str, torch.Tensor]:
        strategy = {name: PARAMETERS[name] for name in names}
        config = small_config(strategy, stream=stream, evaluation={"gain": [], "retention": []})
        assert not list(combinations.problems(config, [catalogue.find(name) for name in names]))
        trainer = make_trainer(config, make_model(2), tokenizer, World())
        trainer.train(trainer.stream)
        return full_state(trainer.model)

    for first, second in permutations(PARAMETERS, 2):
        if not senseless(first, second):
            found = trained(first, second)
            assert all(weight.isfinite().all() for weight in found.values()), (first, second)
            if {first, second} == {"merge", "distill"}:  # what looks at the weights before the experience sees the same
                assert all(torch.equal(found[name], weight) for name, weight in trained(second, first).items())
