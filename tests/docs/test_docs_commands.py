"""The commands on the pages and in the help: the program knows them, and what they name is there."""

import glob
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clmed import benchmark_options, cli, config, validation
from clmed.config.tuning import load_tuning
from clmed.data import miniworld
from clmed.evaluation.benchmarks import find as find_exam
from clmed.sweep.grid import Grid
from tests.command import in_process
from tests.docs.pages import PAGES, ROOT, Block, blocks, tokens

# Stands for a reader's own experiment: it has what pages change.
OWN = "experiments/replay-ewc-average.yaml"
MAKE = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = set(re.findall(r"^(\w+) =$", (ROOT / "setup.cfg").read_text().partition("extras_require]")[2], re.MULTILINE))
# What answers at once runs, on runs that stand for a reader's.
AT_ONCE = ("compare", "diagnose", "plan", "plot", "report", "strategies", "validate", "watch")


def lines(block: Block) -> list[str]:
    """Its commands, a line each; of a console what follows the prompt."""
    whole = block.text.replace("\\\n", " ").splitlines()
    if block.kind == "console":
        whole = [line.removeprefix("$ ") for line in whole if line.startswith("$ ")]
    return [line for line in whole if shlex.split(line, comments=True)]


COMMANDS = [
    pytest.param(line, id=f"{block}: {line[:60]}") for block in blocks("sh", "console") for line in lines(block)
]


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_one(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    for word in words:
        if word.startswith(("experiments/", "benchmarks/", "docs/")) and "=" not in word:
            assert Path(word).exists(), f"{word} is not in the checkout"
    if program == "clmed":
        check(words)
    elif program == "make":
        assert {word for word in words if "=" not in word} <= MAKE
    elif program == "pip":
        assert words[0] == "install"
        for extra in re.findall(r"clmed\[(.*?)\]", " ".join(words[1:])):
            assert set(extra.split(",")) <= EXTRAS
    elif program == "sbatch":
        script = next(number for number, word in enumerate(words) if not word.startswith("-"))
        check(["run", *words[script + 1 :]])
    elif program in ("torchrun", "accelerate"):
        start = words.index("-m")
        assert words[start + 1] == "clmed"
        check(words[start + 2 :])
    elif program == "source":
        assert words == [".venv/bin/activate"]  # made by `make setup`
    elif program == "export":
        assert words and all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in words)
    else:
        assert program in ("python", ".venv/bin/pre-commit", "hf", "git", "wandb"), f"what is {program}?"


def check(words: list[str]) -> None:
    """A command of clmed is parsed by click; the overrides it has fit the experiment it names."""
    command, rest = find(words)
    context = command.make_context("clmed", list(rest))
    values = context.params
    if command.name == "evaluate":
        asked = {name: given for name, given in values.items() if isinstance(given, tuple)}
        evaluation = benchmark_options.evaluation("gpt2", context.meta[cli.ORDER], asked, values["batch_tokens"])
        assert all(exam.task or exam.perplexity or find_exam(exam) for exam in evaluation.evaluation.retention)
    if "overrides" not in values or "{leash.py" in " ".join(words):  # made on its page, and tested there
        return
    file = values["file"] if values["file"].exists() else Path(OWN)
    overrides = [override for override in values["overrides"] if not override.startswith("data_root=")]
    if command.name == "sweep":  # its last run
        grid = Grid.of(file, overrides)
        assert not values["surface"] or len(grid.axes["seed"]) > 1  # its intervals are over seeds
        overrides = [*grid.fixed, *(f"{key}={values[-1]}" for key, values in grid.axes.items())]
    if command.name == "tune":
        assert load_tuning(file, overrides)
    elif miniworld.is_miniworld((found := config.load(file, overrides)).data_root):
        validation.check(found)


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the words behind its name."""
    command: click.Command = cli.commands
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def every_command(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield from every_command(command) if isinstance(command, click.Group) else [command]


@pytest.mark.parametrize("command", [cli.commands, *every_command(cli.commands)], ids=lambda command: command.name)
def test_examples_of_the_help(command: click.Command) -> None:
    """`command   what it does`, or `command && another`, or `command > file`."""
    text = re.sub(r"\\\n\s*", " ", command.help or "")
    for example in re.findall(r"^ *clmed (.*?)(?:   .*| && .*| > .*)?$", text, re.MULTILINE):
        check(shlex.split(example))


def test_options_named_in_a_line_of_text() -> None:
    """`clmed export --point …`: the command has such an option."""
    wrong = []
    for page in PAGES:
        for code in (token.content for token in tokens(page) if token.type == "code_inline"):
            if not code.startswith("clmed "):
                continue
            command, rest = find(re.findall(r"[^\s=]+", code)[1:])
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
            wrong += [f"{page.name}: {code}" for word in rest if word.startswith("--") and word not in known]
    assert not wrong


def runs_at_once(line: str) -> bool:
    """Not what is made on its page, and tested there: leash.py and law.yaml."""
    words = shlex.split(line, comments=True)
    if words[0] != "clmed" or words[1] not in AT_ONCE or {"leash.py:Leash", "law.yaml", "runs/leash"} & set(words):
        return False
    return words[1] not in ("plot", "report") or not {"runs", "runs/*"} & set(words)  # of all runs it takes long


@pytest.mark.parametrize("line", [line for line in COMMANDS if runs_at_once(line.values[0])])
def test_commands_that_answer_at_once(
    line: str, reader: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """On an experiment and runs that stand for the reader's."""
    monkeypatch.chdir(reader)
    words = shlex.split(line, comments=True)[1:]
    there = [each for word in words for each in (sorted(glob.glob(word)) if "*" in word else [stand_in(word)])]
    done = in_process(capfd, *there)
    assert (done.code, done.err) == (0, "")
    assert done.out


def stand_in(word: str) -> str:
    """An experiment, or a run, that is there for one that is not."""
    if word.endswith(".yaml") and not Path(word).exists():
        return OWN
    return "runs/naive" if word.startswith("runs/") and not Path(word).exists() else word


def test_seeds_of_the_first_run_are_one_row(
    reader: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As its page says: two sweeps, compared by strategy."""
    monkeypatch.chdir(reader)
    (line,) = (str(each.values[0]) for each in COMMANDS if "naive-sweep" in str(each.values[0]))
    done = in_process(capfd, *shlex.split(line)[1:], "--format", "json")
    assert [row["seeds"] for row in json.loads(done.out)["rows"]] == [[0, 1], [0, 1]]


def told(block: Block) -> dict[str, str]:
    """What each command of a console is shown to print."""
    parts = re.split(r"^\$ (.*)$", block.text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


SHOWN = [pytest.param(line, out, id=str(block)) for block in blocks("console") for line, out in told(block).items()]


@pytest.mark.parametrize(("line", "shown"), [each for each in SHOWN if str(each.values[0]).startswith("clmed plan ")])
def test_what_is_shown_is_what_comes_out(line: str, shown: str, capfd: pytest.CaptureFixture[str]) -> None:
    """But for the space that is free on this disk."""

    def words(text: str) -> list[str]:
        return re.sub(r"of [\d.,]+ free here", "", " ".join(text.split())).split()

    done = in_process(capfd, *shlex.split(line)[1:])
    assert words(done.out) == words(shown)
