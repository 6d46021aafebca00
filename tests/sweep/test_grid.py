"""Grids: what the arguments of `clmed sweep` mean, and which are refused before anything starts."""

from pathlib import Path

import pytest

from clmed.errors import UserError
from clmed.sweep.grid import Grid, brief, folder_name, short_keys, split
from tests.configs import make_folder

RATIOS = "strategy={},{replay: {ratio: 0.05, from: [general]}}"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,0.01, 0.05 ,0.25", ("0", "0.01", "0.05", "0.25")),
        ("1e-5", ("1e-5",)),
        ("[a, b]", ("[a, b]",)),
        ("[a], [a, b]", ("[a]", "[a, b]")),
        ("{replay: {ratio: 0.1}},{}", ("{replay: {ratio: 0.1}}", "{}")),
        ('"a,b",c', ('"a,b"', "c")),
        ("runs/a@1,runs/b@exam", ("runs/a@1", "runs/b@exam")),
        ("my_methods.py:Mine", ("my_methods.py:Mine",)),
        ("null,5", ("null", "5")),
    ],
)
def test_commas_outside_of_brackets_and_quotes_separate_values(text: str, values: tuple[str, ...]) -> None:
    assert split(f"key={text}", text) == values


@pytest.mark.parametrize("text", ["", " ", "0,", "0,,1", ",0", "[a", "a]", "0],[1", "0 # rest", '"a', "*a"])
def test_no_list_of_values(text: str) -> None:
    with pytest.raises(UserError, match="command line: 'key="):
        split(f"key={text}", text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed"], "'seed' is not of the form"),
        (["=1,2"], "'=1,2' is not of the form"),
        (["seed=0,1", "seed=2"], "seed is given twice; write all of its values in one"),
        (["seed=2", "seed=0,1"], "seed is given twice"),
        (["seed=1"], "nothing changes from run to run"),
    ],
)
def test_arguments_that_make_no_grid(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Grid.of(Path("base.yaml"), arguments)


def test_every_combination_is_an_experiment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, monkeypatch)
    grid = Grid.of(Path("base.yaml"), [RATIOS, "stream.tuning.tokens=1M,2.5M", "seed=0,1", "training.save_every=9"])
    points = grid.points()
    assert len(points) == len({point.name for point in points}) == 8
    assert [point.config.seed for point in points] == [0, 1] * 4
    assert [point.config.stream[1].tokens for point in points] == [1_000_000] * 2 + [2_500_000] * 2 + [
        1_000_000
    ] * 2 + [2_500_000] * 2
    assert [list(point.config.strategy) for point in points] == [[]] * 4 + [["replay"]] * 4
    assert {point.config.training.save_every for point in points} == {9}
    assert points[2].name.endswith(",tokens=2.5M,seed=0")
    # what differs in the seed alone has one name
    assert points[2].config.name == points[3].config.name != points[0].config.name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seeed=0,1"], "unknown key 'seeed'; did you mean 'seed'?"),
        (["stream.pretraining.epoch=1,2"], "unknown key 'epoch' in stream"),
        (["stream.pretrainin.epochs=1,2"], "did you mean 'pretraining'?"),
        (["strategy.replay={from: [general]},{ratoi: 0.1, from: [general]}"], "did you mean 'ratio'?"),
        (["seed=0,x"], "seed: must be a whole number"),
        (["data.general.path=general.jsonl,nowhere.jsonl"], "no file or folder 'nowhere.jsonl'"),
        (["stream.tuning.tokens=400k,400000"], "=400k and stream.tuning.tokens=400000|=400k and =400000"),
        (["seed=1,01"], "one and the same experiment"),
    ],
)
def test_mistakes_of_any_run_are_told_before_the_first(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        Grid.of(Path("base.yaml"), arguments).points()


def test_one_mistake_in_all_runs_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, monkeypatch)
    with pytest.raises(UserError) as caught:
        Grid.of(Path("base.yaml"), ["data.general.heldout=0", "seed=0,1,2"]).points()
    assert str(caught.value).count("held-out") == 1


def test_names_of_folders() -> None:
    keys = ["stream.0.tokens", "stream.1.tokens", "strategy.replay.ratio", "seed"]
    assert short_keys(keys) == ["0.tokens", "1.tokens", "ratio", "seed"]
    assert short_keys(["a.b", "b"]) == ["a.b", "b"]
    assert folder_name({"strategy.replay.ratio": "0.05", "seed": "1"}) == "ratio=0.05,seed=1"
    odd = [brief(text) for text in ("a/b", "a b", "{a: b}", "[a, b]", "x" * 300, "{}", "血")]
    assert len(set(odd)) == 7 and not any(set(name) & set("/ {}[]") or len(name) > 50 for name in odd)
    assert brief("a/b") == brief("a/b")
