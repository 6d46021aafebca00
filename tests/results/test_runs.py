"""compare, plot, report and diagnose read runs alike: one, several or a folder of them, whole or not."""

import json
from pathlib import Path

import pytest
from answered import EXAMS, answered_run
from click.testing import CliRunner

from clmed.cli import commands
from clmed.results.comparison import compare
from clmed.results.groups import by_strategy
from clmed.results.plots import figures, plane
from clmed.results.rundir import RunDirectory
from clmed.results.runs import Run, open_runs

COMMANDS = {"compare": [], "plot": ["--only", "forgetting", "--format", "png"], "report": [], "diagnose": []}
UNLIKE = {"replay": {"ratio": 0.05}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs in every state, and something else."""
    folder = tmp_path_factory.mktemp("runs")
    answered_run(folder / "naive", forgets=0.5)
    answered_run(folder / "replay", name="replay", strategy=UNLIKE, forgets=0.02)
    answered_run(folder / "going", name="going", strategy={"ewc": {}}, points=2, state="running")
    killed = answered_run(folder / "killed", name="killed", strategy={"lora": {}}, points=2, state="running")
    status = json.loads((killed / "status.json").read_text())
    (killed / "status.json").write_text(json.dumps(status | {"pid": 2**22 + 1}))
    torn = answered_run(folder / "torn", name="torn", strategy={"der": {}})
    with (torn / "results.jsonl").open("a") as file:
        file.write("{]\n")
    nulled(answered_run(folder / "nulled", name="nulled", strategy={"agem": {}}))
    lost = answered_run(folder / "lost", name="lost", strategy={"l2": {}})
    (lost / "status.json").write_text("")
    RunDirectory.create(folder / "empty", "name: empty\n", {})
    (folder / "notes").mkdir()
    return folder


def nulled(run: Path) -> Path:
    """As other programs (jq, pandas) write what was no number."""
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    (run / "results.jsonl").write_text("".join(json.dumps(row | {"score": None}) + "\n" for row in rows))
    return run


def told(command: str, *arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(commands, [command, *arguments, *COMMANDS[command]])
    words = f"{ran.output}{ran.exception or ''}".replace("\n", " ")
    return ran.exit_code, " ".join(words.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_stands_for_its_runs_and_each_is_shown_as_it_is(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = told(command, str(folder))
    assert code == 0, text
    if command == "report":
        text = (tmp_path / "report.html").read_text()
    for name, words in {
        "going": "is still going",
        "killed": "was killed before its end",
        "torn": "results.jsonl, line ",
        "nulled": "is damaged (its point or its score is no number); mend or delete this line",
        "lost": "status.json cannot be read",
        "empty": "holds no results yet",
    }.items():
        assert name in text and words in text, (name, text)
    assert "notes" not in text.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_without_runs_each_says_what_to_do(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "no" / "runs"  # beside tmp_path are those of other tests, which it would be shown
    empty.mkdir(parents=True)
    monkeypatch.chdir(empty)
    for arguments in ([], [str(empty)], ["nowhere"]):
        code, text = told(command, *arguments)
        assert code and "clmed run FILE" in text, text


@pytest.mark.parametrize("command", ["plot", "report", "diagnose"])
def test_of_one_run_that_cannot_be_read_the_file_is_named(command: str, folder: Path) -> None:
    code, text = told(command, str(folder / "torn"))
    assert code and text.count("torn/results.jsonl, line") == 1
    code, text = told(command, str(folder / "nulled"))
    assert code and text.count("nulled/results.jsonl, line 1 is damaged (its point or its score is no number)") == 1


def test_labels_of_figures_tell_the_state(folder: Path) -> None:
    figure = figures([folder])["forgetting"]()
    shown = " ".join(text.get_text() for axes in figure.axes for text in axes.texts).replace("\n", " ")
    for label in ("going (running)", "killed (killed)", "lost (damaged)"):
        assert label in shown


def test_the_plane_shows_what_a_comparison_says(tmp_path: Path) -> None:
    """Over the benchmarks and the questions that all share, whoever has more; without whom was asked others."""
    for seed in range(2):
        answered_run(tmp_path / f"naive-{seed}", seed=seed, forgets=0.5, first={"mmlu": 50})
        less = {name: EXAMS[name] for name in ("exam", "mmlu")}
        answered_run(tmp_path / f"r-{seed}", name="r", seed=seed, strategy=UNLIKE, exams=less)
    answered_run(tmp_path / "apart", name="apart", strategy={"ewc": {}}, first={"mmlu": 1000})
    rows = {row.label: row for row in compare([tmp_path], by="strategy").rows}
    spots = {spot.label: spot for spot in plane.spots(by_strategy(open_runs([tmp_path])))}
    assert set(spots) == {"naive (2 seeds)", "r (2 seeds)"}
    for name in ("naive", "r"):
        expected = [100 * estimate.value for estimate in (rows[name].gain, rows[name].retention) if estimate]
        assert spots[f"{name} (2 seeds)"].mean == pytest.approx(expected)


def test_what_is_not_asked_for_is_not_read(folder: Path) -> None:
    run = Run(path=folder / "naive")
    assert run.state == "complete" and run.last == 2
    assert not {"rows", "training", "matrix", "environment"} & vars(run).keys()
    assert run.whole == [row for row in run.rows if row["category"] == "all"]
