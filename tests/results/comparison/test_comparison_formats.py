"""The same comparison as table, Markdown, LaTeX, CSV and JSON, from Python and from the command."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from answered import answered_run
from click.testing import CliRunner
from rich.console import Console

from clmed.cli import commands
from clmed.results import frames
from clmed.results.comparison import compare, formats


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Naive, replay (better) and a run that is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    answered_run(folder / "naive", forgets=0.6)
    answered_run(folder / "replay", name="replay_5%", strategy={"replay": {"ratio": 0.05}}, forgets=0.0)
    answered_run(folder / "stopped", name="stopped", strategy={"ewc": {}}, state="stopped", points=2)
    return folder


def test_the_table_fits_80_characters_and_tells_marks_verdicts_and_notes(folder):
    console = Console(width=80, record=True, file=io.StringIO())
    for part in formats.terminal(compare([folder])):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" in text and "...\n" not in text
    told = " ".join(text.split())  # where lines break depends on the folder's name
    for part in ("▲", "forgotten", "retained", "●", "○", "(stopped)", "was stopped before its end", "100k"):
        assert part in told, part


def test_names_give_way_and_numbers_are_never_cut(tmp_path):
    for number, name in enumerate(("naive", "a-strategy-of-a-very-long-name", "withoutanybreakinitsverylongname")):
        strategy = {"replay": {"ratio": number / 10}} if number else {}
        answered_run(tmp_path / name, name=name, strategy=strategy, forgets=0.02 * number, learns=0.05)
    found = compare([tmp_path])
    console = Console(width=80, record=True, file=io.StringIO())
    for part in formats.terminal(found):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "undecided" in text
    for row in found.rows:
        for estimate in (row.gain, row.retention, row.forgetting):
            ends = [f"{100 * end:.1f}".replace("-", "−") for end in (estimate.low, estimate.high)]
            assert "…".join(ends) in text


def test_many_benchmarks_are_told_in_several_tables(tmp_path):
    exams = {f"exam-{number}": ("retention", 0.5, 40, 2) for number in range(6)}
    answered_run(tmp_path / "run", exams=exams)
    console = Console(width=80, record=True, file=io.StringIO())
    for part in formats.terminal(compare([tmp_path / "run"])):
        console.print(part)
    text = console.export_text()
    assert text.count("change by benchmark") == 2 and all(name in text for name in exams)


def test_csv_has_every_number_unrounded(folder):
    found = compare([folder])
    rows = list(csv.DictReader(io.StringIO(formats.as_csv(found))))
    assert [row["label"] for row in rows] == ["naive", "replay_5%", "stopped"]
    assert float(rows[1]["mmlu_low"]) == found.rows[1].cells["mmlu"].change.low
    assert rows[1]["mmlu_mark"] == "better" and rows[0]["mmlu_difference"] == "" and rows[0]["reference"] == "True"


def test_a_benchmark_may_be_called_as_a_column(tmp_path):
    names = ("gain", "mmlu", "mmlu_forgetting", "benchmark:gain")
    answered_run(tmp_path / "run", exams={name: ("gain", 0.1 * n, 40, 2) for n, name in enumerate(names, start=3)})
    found = compare([tmp_path / "run"])
    (row,) = csv.DictReader(io.StringIO(formats.as_csv(found)))
    starts = ("benchmark:gain", "mmlu", "benchmark:mmlu_forgetting", "benchmark:benchmark:gain")
    cells = found.rows[0].cells
    assert float(row["gain"]) == pytest.approx(found.rows[0].gain.value)
    for name, start in zip(names, starts, strict=True):
        assert float(row[start]) == cells[name].change.value
        assert float(row[f"{start}_forgetting"]) == cells[name].forgetting.value
    frame = frames.compared(found)
    assert frame.columns.is_unique
    assert frame["benchmark:gain"].item() == cells["gain"].change.value
    assert frame["mmlu_forgetting"].item() == cells["mmlu_forgetting"].change.value


def test_json_is_valid_and_whole(folder):
    found = compare([folder])
    read = json.loads(formats.as_json(found))
    assert read["rows"][1]["cells"]["mmlu"]["change"]["value"] == found.rows[1].cells["mmlu"].change.value
    assert read["rows"][0]["verdict"]["kind"] == "forgotten" and read["notes"] == list(found.notes)


def test_markdown_and_latex_escape_what_would_break_a_table(folder):
    found = compare([folder])
    markdown, latex = formats.markdown(found), formats.latex(found)
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(tables) == 10 and {line.count("|") for line in tables} == {9, 5}
    assert r"replay\_5\% $\bullet$" in latex and latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert "▲" not in latex.split("%")[0] and "−" not in latex.split("\n%")[0]


def test_names_are_shown_as_they_are_written(folder):
    found = compare([folder])
    odd = replace(found, rows=(replace(found.rows[0], label=r"a<b>~c^d\\e|f"),))
    assert r"a&lt;b>~c^d\\e\|f" in formats.markdown(odd)
    tilde, caret, slash = r"\textasciitilde{}", r"\textasciicircum{}", r"\textbackslash{}"
    assert rf"a\textless{{}}b\textgreater{{}}{tilde}c{caret}d{slash}{slash}e\textbar{{}}f" in formats.latex(odd)
    bracket = replace(found, rows=(replace(found.rows[0], label="[x] y", on_front=False, on_trivial_front=False),))
    assert "\\midrule\n{}[x] y &" in formats.latex(bracket)  # else an option of the line's end


def test_the_command_writes_what_it_is_asked_for(folder, tmp_path):
    run = CliRunner().invoke
    told = run(commands, ["compare", str(folder / "naive"), str(folder / "replay"), "--margin", "0.5"])
    assert told.exit_code == 0 and "above 0.5 points" in " ".join(told.output.split())
    file = tmp_path / "out.md"
    assert run(commands, ["compare", str(folder), "--format", "markdown", "-o", str(file)]).output == f"{file}\n"
    assert file.read_text(encoding="utf-8") == formats.markdown(compare([folder]))
    assert run(commands, ["compare", str(folder), "-o", str(file)]).exit_code == 0 and "▲" in file.read_text()


def test_a_comparison_needs_no_torch(folder):
    code = (
        "import sys; from clmed.results.comparison import compare; compare(sys.argv[1:]); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
