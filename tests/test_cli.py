"""The command line: exit codes, messages without a traceback, and no heavy imports where none are needed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import clmed
from clmed import cli, validation

REPOSITORY = Path(__file__).parent.parent

GOOD = """\
name: good
model: {path: gpt2}
data: {general: {path: general.jsonl, format: text}}
stream: [{name: first, data: general, epochs: 1, optimizer: {lr: 1e-3}}]
evaluation: {retention: [{perplexity: general}]}
training: {sequence_length: 64, tokens_per_step: 128}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with one good and two bad files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "general.jsonl").write_text('{"text": "A"}\n')
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("epochs", "epoch"))
    (tmp_path / "worse.yaml").write_text(GOOD.replace("general.jsonl", "gone.jsonl"))
    return tmp_path


def clmed_with(*arguments: str, modules: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; with `modules`, the heavy ones it imported go to stderr."""
    end = "import atexit, sys; heavy = 'torch avalanche transformers datasets numpy matplotlib'.split()\n"
    end += "atexit.register(lambda: print([name for name in heavy if name in sys.modules], file=sys.stderr))\n"
    code = (end if modules else "") + "from clmed.cli import main; main()"
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["clmed", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code or 0  # type: ignore[return-value]


def stand_in(monkeypatch: pytest.MonkeyPatch, package: ModuleType, name: str, **functions: Any) -> None:
    """A module in the place of `package.name`, so that the command's own work is seen alone."""
    module = ModuleType(f"{package.__name__}.{name}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(package, name, module, raising=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["strategies"],
        ["strategies", "show", "ewc"],
        ["validate", "good.yaml"],
        ["plan", "--help"],
        ["evaluate", "-h"],
    ],
)
def test_light_commands_import_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    done = clmed_with(*arguments, modules=True)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert done.stdout


def test_python_m_clmed_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "clmed", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"clmed, version {clmed.__version__}"


def test_validate_tells_all_mistakes_of_all_files(folder: Path) -> None:
    done = clmed_with("validate", "bad.yaml", "good.yaml", "worse.yaml")
    assert done.returncode == 2
    assert done.stdout == "good.yaml: fine (first; strategy naive; measures general_perplexity)\n"
    assert done.stderr.splitlines() == [
        "bad.yaml, line 4: unknown key 'epoch' in stream[0]; did you mean 'epochs'?",
        "worse.yaml, line 3: data.general.path: no file or folder 'gone.jsonl' in .; did you mean 'general.jsonl'?",
    ]


def test_validate_takes_the_overrides_of_run(folder: Path) -> None:
    done = clmed_with("validate", "good.yaml", "worse.yaml", "data.general.path=general.jsonl", "seed=1")
    assert done.returncode == 0 and done.stdout.count(": fine") == 2


@pytest.mark.parametrize("command", ["run", "validate"])
def test_the_examples_of_the_help_are_valid(command: str) -> None:
    lines = (cli.commands.commands[command].help or "").splitlines()
    examples = [shlex.split(line)[2:] for line in lines if line.strip().startswith(f"clmed {command} ")]
    assert len(examples) >= 2
    for arguments in examples:
        files = [REPOSITORY / argument for argument in arguments if argument.endswith(".yaml")]
        for file in files:
            validation.load(file, arguments[len(files) :])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "bad.yaml"], "bad.yaml, line 4: unknown key 'epoch'"),
        (["run", "none.yaml"], "none.yaml: no such file"),
        (["run", "good.yaml", "sed=1"], "command line: unknown key 'sed'; did you mean 'seed'?"),
        (["run", "good.yaml", "strategy.ewk.strength=1"], "command line: no strategy 'ewk'; did you mean 'ewc'?"),
        (["run", "good.yaml", "seed"], "command line: 'seed' is not of the form key=value"),
        (["run"], "Missing argument 'FILE'"),
        (["plot"], "No run is given"),
        (["report"], "No run is given"),
        (["validate", "seed=1"], "Missing argument 'FILE...'"),
        (["walk"], "No such command 'walk'"),
        (["strategies", "show", "ewk"], "no strategy 'ewk'; did you mean 'ewc'?"),
        (["strategies", "show"], "Missing argument 'NAME'"),
    ],
)
def test_mistakes_end_with_2_and_no_traceback(folder: Path, arguments: list[str], message: str) -> None:
    done = clmed_with(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_strategies_lists_name_summary_parameters_and_paper() -> None:
    words = clmed_with("strategies").stdout
    for word in (
        "naive",
        "replay",
        "ewc",
        "interleave",
        "joint",
        "ratio: float = 0.05",
        "from: list[str] (required)",
        "arXiv",
    ):
        assert word in words


def test_run_hands_over_config_output_and_overwrite(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    stand_in(monkeypatch, clmed, "experiment", run=lambda *arguments: calls.append(arguments))
    assert run_main(monkeypatch, "run", "good.yaml", "seed=3", "-o", "out", "--overwrite") == 0
    assert run_main(monkeypatch, "run", "good.yaml", "--output", "x", "name=other") == 0
    assert run_main(monkeypatch, "run", "good.yaml") == 0
    (first, *rest), (second, *_), (_, *defaults) = calls
    assert (first.seed, rest) == (3, [Path("out"), True])
    assert second.name == "other"
    assert defaults == [None, False]


@pytest.mark.parametrize(("chosen", "expected"), [(None, "0"), ("7", "7")])
def test_threads_do_not_spin_unless_asked_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: str
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", chosen or "")  # so that it is put back
    if chosen is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    seen: list[str | None] = []
    stand_in(monkeypatch, clmed, "experiment", run=lambda *_: seen.append(os.environ.get("GOMP_SPINCOUNT")))
    assert run_main(monkeypatch, "run", "good.yaml") == 0
    assert seen == [expected]


def test_plot_prints_what_it_draws(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from clmed import results

    def plot_runs(runs: list[Path], out: Path | None, only: list[str], formats: list[str], tell: Any) -> list[Path]:
        tell("runs/a is still going")
        return [out / f"{name}.{format}" for name in only for format in formats] if out else runs

    stand_in(monkeypatch, results, "plots", plot_runs=plot_runs)
    assert run_main(monkeypatch, "plot", "runs/a", "-o", "x", "--only", "plane,mixture", "--format", "pdf") == 0
    assert run_main(monkeypatch, "plot", "runs/a") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["x/plane.pdf", "x/mixture.pdf", "runs/a"]
    assert said.err.splitlines() == ["runs/a is still going"] * 2


def test_stopped_by_the_user(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    stand_in(monkeypatch, clmed, "experiment", run=interrupted)
    assert run_main(monkeypatch, "run", "good.yaml") == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_a_bug_keeps_its_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any) -> None:
        raise ZeroDivisionError

    stand_in(monkeypatch, clmed, "experiment", run=bug)
    monkeypatch.setattr(sys, "argv", ["clmed", "run", "good.yaml"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
