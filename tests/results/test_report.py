"""The report page: what it says of runs, whole or not, and that no name in them can do harm."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest
from whole_runs import PERPLEXITY, whole_run

from clmed.errors import UserError
from clmed.results.comparison import Cell, Comparison, Row
from clmed.results.comparison.compare import compare_runs
from clmed.results.report.facts import configurations, cost, duration, environments, mixture
from clmed.results.report.losses import flip_table
from clmed.results.report.page import Page, Section, make_page
from clmed.results.report.render import render, write_report
from clmed.results.report.scores import benchmark_table
from clmed.results.report.summary import sentences
from clmed.results.report.tables import Table
from clmed.results.rundir import RunDirectory
from clmed.results.runs import Run
from clmed.results.statistics.estimate import unknown

HOSTILE = '<script>alert("1")</script>'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Naive training and replay, and a run that was stopped early."""
    folder = tmp_path_factory.mktemp("runs")
    whole_run(folder / "naive")
    whole_run(folder / "replay", name="replay", keeps=0.7, strategy={"replay": {"ratio": 0.25}})
    whole_run(folder / "ewc", name="ewc", keeps=0.4, points=3, state="stopped")
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Page:
    return make_page([runs / "naive", runs / "replay", runs / "ewc"])


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take most of the time."""
    monkeypatch.setattr("clmed.results.report.figures.draw", lambda runs, labels: ({}, []))


def table(page: Page, name: str) -> Table:
    return next(table for section in page.sections for table in section.tables if table.name == name)


def column(found: Table, heading: str) -> list[str]:
    at = [column.heading for column in found.columns].index(heading)
    return [row[at].text for row in found.rows]


class Tags(HTMLParser):
    """The tags of a page and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_scores_are_those_of_the_run(page: Page, runs: Path) -> None:
    rows = RunDirectory.open(runs / "replay").results()
    score = {row["point"]: row["score"] for row in rows if (row["benchmark"], row["category"]) == ("mmlu", "all")}
    found = table(page, "score-table")
    at = next(n for n, row in enumerate(found.rows) if [row[0].text, row[1].text] == ["mmlu", "replay"])
    assert column(found, "base")[at] == f"{100 * score[0]:.1f}"
    assert column(found, "now")[at] == f"{100 * score[4]:.1f}"
    assert column(found, "change")[at] == f"{100 * (score[4] - score[0]):+.1f}".replace("-", "−")
    assert re.fullmatch(r"\[−[\d.]+, [−+][\d.]+\]", found.rows[at][5].note)


def test_categories_are_ordered_by_their_loss_and_bold_where_it_is_more_than_chance(page: Page, runs: Path) -> None:
    found = table(page, "category-table")
    assert len(found.rows) == 57 + 4 + 7
    means = [sum(cell.sort for cell in row[2:] if cell.sort is not None) / 3 for row in found.rows]
    assert means == pytest.approx(sorted(means))
    humanities = next(row for row in found.rows if row[0].text == "humanities")
    assert (humanities[2].tone, humanities[0].note) == ("worse", "category of mmlu")
    subjects = [row for row in found.rows if row[0].note == "subject of mmlu"]
    assert sum(bool(row[2].tone) for row in subjects) < len(subjects) / 2  # 14 questions each: mostly chance


def test_forgotten_questions_are_those_of_the_answers(page: Page, runs: Path) -> None:
    run = RunDirectory.open(runs / "naive")
    base, now = run.answers(0, "mmlu"), run.answers(4, "mmlu")
    lost = {
        (subject.replace("_", " "), str(index), question, gold, said)
        for subject, index, question, gold, one, other, said in zip(
            *(base[key] for key in ("subject", "index", "question", "gold", "correct")),
            *(now[key] for key in ("correct", "prediction")),
            strict=True,
        )
        if one and not other
    }  # fmt: skip
    rows = [row for row in table(page, "flip-table").rows if (row[0].text, row[1].note) == ("naive", "mmlu")]
    shown = [tuple(cell.text for cell in row[1:]) for row in rows]
    assert len(shown) == len(lost) and set(shown) == lost
    changed = table(page, "changed-table")
    row = next(row for row in changed.rows if [cell.text for cell in row[:2]] == ["naive", "mmlu"])
    assert row[2].text == str(len(lost))


def test_many_forgotten_questions_are_cut_and_counted(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clmed.results.report.losses.MOST_FLIPS", 10)
    found = flip_table({"naive": [Run(path=runs / "naive")]}, ["mmlu"])
    assert found is not None and len(found.rows) == 10 and found.cut > 10
    section = Section(name="flips", heading="Forgotten", tables=[found])
    assert column(found, "question")[0].startswith("What is ")
    for file in (runs / "ewc" / "answers").glob("*/mmlu.parquet"):  # as of a run that did not keep it
        point, ewc = int(file.parent.name), RunDirectory.open(runs / "ewc")
        ewc.write_answers(point, "mmlu", {k: v for k, v in ewc.answers(point, "mmlu").items() if k != "question"})
    without = flip_table({"ewc": [Run(path=runs / "ewc")]}, ["mmlu"])
    assert without is not None and "question" not in [each.heading for each in without.columns]
    assert f"{found.cut} more are left out here" in render(Page(title="", summary=[], runs=[], sections=[section]))


def test_of_a_perplexity_the_tokens_are_shown_that_it_rests_on(tmp_path: Path) -> None:
    for name in ("naive", "replay"):
        run = RunDirectory(whole_run(tmp_path / name, name=name, points=2, state="stopped"))
        scores = {row["point"]: row["score"] for row in run.results() if row["benchmark"] == PERPLEXITY}
        for point, score in scores.items():
            rows = {"benchmark": [PERPLEXITY] * 99, "index": list(range(99)), "tokens": [1000] * 99}
            run.write_answers(point, PERPLEXITY, rows | {"nats": [1000 * score] * 99, "bytes": [4000] * 99})
    runs = [Run(path=tmp_path / name) for name in ("naive", "replay")]
    compared = compare_runs(runs)
    assert compared.rows[0].cells[PERPLEXITY].questions == 99  # rows of text
    found = benchmark_table(compared, {run.name: [run] for run in runs})
    assert column(found, "questions")[-2:] == ["99,000", "99,000"]
    assert found.columns[-1].hint == "of a perplexity: the tokens measured"


def compared(*rows: Row, by: Literal["run", "strategy"] = "run") -> Comparison:
    names = tuple(dict.fromkeys(name for row in rows for name in row.cells))
    return Comparison(by=by, margin=0.01, reference=rows[0].label, benchmarks=names, primary=names, rows=rows, notes=())


def row(label: str, gain: float, retention: float | None = None, needed: int = 1, **known: Any) -> Row:
    """known: a Row's other fields; mark: of its perplexity, which is tested where there is one."""
    mark = known.pop("mark", None)
    change = unknown(0.1)
    cell = Cell(role="retention", metric="nats_per_token", questions=9, primary=True, change=change, forgetting=change)
    wiki = replace(cell, p=None if mark is None else 0.5, mark=mark or "")
    cells = {"exam": replace(cell, role="gain", metric="accuracy"), "wiki": wiki}
    whole = {"gain": unknown(gain), "retention": None if retention is None else unknown(retention)}
    runs = tuple(Path(str(seed)) for seed in range(known.pop("seeds", 1)))
    return Row(
        label=label, strategy=label, runs=runs, seeds=(), needed=needed, state="complete", cells=cells, **whole, **known
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [row("a", -0.07, -0.02), row("b", -0.09, -0.01)],
            "Of 2 runs, none gained: a lost least (−7.0 points) and b kept most of general ability (−1.0 points).",
        ),
        ([row("naive", 0.0), row("ewc", -0.09)], "Of 2 runs, none gained: naive lost nothing (0.0 points)."),
        ([row("naive", 0.0621), row("ewc", 0.0619)], "Of 2 runs, naive and ewc gained alike (+6.2 points each)."),
        (
            [row("a", 0.0621), row("b", 0.0619), row("c", 0.01)],
            "Of 3 runs, a and b gained most (+6.2 points each).",
        ),
        (
            [row("a", 0.05, -0.1), row("b", 0.06, 0.1)],
            "Of 2 runs, b gained most (+6.0 points) and kept most of general ability (+10.0 points).",
        ),
        (
            [row("a", 0.05), row("b", 0.06), row("c", 0.9, mismatches=("budget",)), row("d", math.nan)],
            "Of 2 runs (2 more cannot be compared), b gained most (+6.0 points).",
        ),
    ],
)
def test_who_gained_most_is_true(rows: list[Row], said: str) -> None:
    assert sentences(compared(*rows)) == [said]


def test_too_few_seeds_are_said_beside_who_gained_most() -> None:
    naive, replay = row("naive", 0.01, seeds=2, needed=3), row("replay", 0.02, seeds=1, needed=3)
    first, few = sentences(compared(naive, replay, by="strategy"))
    assert first == "In these runs of 2 strategies, replay gained most (+2.0 points)."
    assert few == "None has the 3 seeds that a statement about a strategy needs."
    enough = row("ewc", 0.01, seeds=3, needed=3)
    assert sentences(compared(enough, replay, by="strategy"))[1].endswith("about the strategy: replay (1 of 3).")
    alone = sentences(compared(naive, by="strategy"))
    assert alone[0] == "naive gained 1.0 points on exam."
    assert alone[1] == "Too few seeds for a statement about the strategy: naive (2 of 3)."
    assert len(sentences(compared(enough, replace(enough, label="lora"), by="strategy"))) == 1


def test_none_is_better_only_where_no_benchmark_is_and_all_were_tested() -> None:
    naive, worse, same, untested = row("naive", 0.1), *(row(str(m), 0.1, mark=m) for m in ("worse", "", None))
    assert sentences(compared(naive, worse, same))[1] == "Compared with naive, worse on wiki: worse."
    assert sentences(compared(naive, same))[1] == "None is more than chance better or worse than naive."
    mixed = sentences(compared(naive, replace(same, label="ewc"), untested))
    assert mixed[1] == "ewc is not more than chance better or worse than naive."
    assert len(sentences(compared(naive, untested))) == 1


@pytest.mark.usefixtures("no_figures")
def test_the_summary_speaks_of_one_run_and_of_several(page: Page, runs: Path) -> None:
    one = make_page([runs / "naive"])
    assert re.match(r"After 2\.26B domain tokens naive gained [\d.]+ points \[.*\] on cmexam and lost", one.summary[0])
    assert one.summary[1] == "General ability was forgotten: the loss is more than chance."
    assert re.match(r"Of 3 runs, \w+ gained most .* and replay kept most of general ability", page.summary[0])
    assert "better in retention: replay" in page.summary[1]
    found = next(section.findings for section in one.sections if section.name == "diagnosis")
    assert [each.finding.signature for each in found] == ["forgetting"]
    assert found[0].file.startswith(f"extends: {runs / 'naive' / 'config.yaml'}")


def test_of_the_base_alone_it_says_that_it_is_the_base(tmp_path: Path) -> None:
    page = make_page([whole_run(tmp_path / "run", points=1, state="stopped")])
    assert page.summary[0].startswith("Only the base model has been measured so far")
    assert column(table(page, "point-table"), "measured after") == ["base"]
    assert "score-table" not in render(page)


@pytest.mark.usefixtures("no_figures")
def test_seeds_of_one_strategy_are_a_row(tmp_path: Path) -> None:
    for seed in range(2):
        whole_run(tmp_path / f"naive-{seed}", seed=seed)
        whole_run(
            tmp_path / f"replay-{seed}", name="replay", seed=seed, keeps=0.7, strategy={"replay": {"ratio": 0.25}}
        )
    page = make_page([tmp_path])
    assert page.title == "4 runs compared"
    assert column(table(page, "overview-table"), "strategy") == ["naive", "replay"]
    assert column(table(page, "overview-table"), "seeds") == ["2", "2"]
    assert [column.heading for column in table(page, "category-table").columns[2:]] == ["naive", "replay"]
    assert len(table(page, "cost-table").rows) == 4


def test_cost_mixture_and_configuration(runs: Path) -> None:
    named = {name: Run(path=runs / name) for name in ("naive", "replay")}
    assert column(cost(named), "domain tokens") == ["2.26B", "2.26B"]
    assert column(cost(named), "all tokens") == ["2.26B", "2.83B"]
    assert column(cost(named), "measuring") == ["10.9 min"] * 2  # five points, two exams of 61.5 s and 8.1 s of text
    shares = mixture(named)
    assert shares is not None
    assert column(shares, "source") == ["encyclopedia"] * 2 + ["encyclopedia", "general"] * 2
    assert column(shares, "of tokens")[-2:] == ["80.0%", "20.0%"]
    differences = configurations(named)
    assert differences is not None
    assert [[cell.text for cell in row] for row in differences.rows] == [
        ["name", "naive", "replay"],
        ["strategy.replay.ratio", "–", "0.25"],
    ]
    assert configurations({"naive": named["naive"]}) is None
    found = environments(named)
    assert found is not None and [column.heading for column in found.columns] == ["setting", "all runs"]
    assert [duration(seconds) for seconds in (44.69, 700, 9000, 251_333)] == ["44.7 s", "11.7 min", "2.5 h", "2.91 d"]


def test_names_that_look_like_html_are_only_text(tmp_path: Path) -> None:
    path = whole_run(tmp_path / "run", name=HOSTILE, strategy={HOSTILE: {HOSTILE: HOSTILE}})
    file = path / "results.jsonl"
    file.write_text(
        file.read_text().replace('"mmlu"', json.dumps(HOSTILE)).replace("humanities", '<b onclick=\\"x\\">')
    )
    for folder in (path / "answers").iterdir():
        (folder / "mmlu.parquet").rename(folder / f"{HOSTILE.replace('/', '%2F')}.parquet")
    text = write_report([path]).read_text()
    tags = Tags(text).found
    assert [tag for tag, _ in tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    assert len(re.findall("<script", text)) == 1
    assert text.count("&lt;script&gt;") > 10


@pytest.mark.usefixtures("no_figures")
def test_a_run_that_is_not_whole_is_shown_as_it_is(runs: Path, tmp_path: Path) -> None:
    killed = whole_run(tmp_path / "killed", name="killed", points=3, state="running")
    status = json.loads((killed / "status.json").read_text())
    (killed / "status.json").write_text(json.dumps(status | {"pid": 2**22 + 1}))
    (killed / "config.yaml").write_text("name: killed\nseed: 0\nstream: []\n")  # as of another version
    going = whole_run(tmp_path / "going", name="going", points=2, state="running")  # this very process
    damaged = whole_run(tmp_path / "damaged", name="damaged")
    (damaged / "train.jsonl").write_text("not json\n")
    (damaged / "answers" / "4" / "mmlu.parquet").write_bytes(b"PAR1")
    empty = RunDirectory.create(tmp_path / "empty", "name: empty\nseed: 0\n", {"python": "3.11"}).path
    page = make_page([runs / "naive", runs / "ewc", killed, going, damaged, empty])
    assert {line.label: line.state for line in page.runs} == {
        "naive": "complete", "ewc": "stopped", "killed": "killed", "going": "running", "damaged": "damaged",
        "empty": "running",
    }  # fmt: skip
    told = {line.label: f"{line.told} {' '.join(line.problems)}" for line in page.runs}
    assert "goes on with it (SIGTERM)" in told["ewc"]
    assert "no results yet" in told["empty"]
    assert "train.jsonl, line 1" in told["damaged"] and "mmlu.parquet is damaged" in told["damaged"]
    labels = column(table(page, "overview-table"), "run")
    assert labels == ["naive", "ewc", "killed", "going", "damaged"]
    text = render(page)
    assert "damaged" in text and "killed was not diagnosed" in text


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda path: RunDirectory.create(path, "name: a\n", {}).set_status("stopped", "SIGTERM"),
            "holds no results yet",
        ),
        (lambda path: None, "there is no such folder"),
        (lambda path: path.write_text(""), "this is a file"),
    ],
)
def test_nothing_to_report_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], told: str
) -> None:
    monkeypatch.chdir(tmp_path)  # away from runs/
    make(tmp_path / "run")
    with pytest.raises(UserError, match=told) as caught:
        write_report([tmp_path / "run"])
    assert "clmed run" in str(caught.value)


@pytest.mark.usefixtures("no_figures")
def test_where_it_is_written(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_report([runs / "naive"]) == runs / "naive" / "report.html"
    assert write_report([runs / "naive", runs / "ewc"]) == Path("report.html")
    again = write_report([runs / "naive"], Path("deep/er.html"))
    assert again.read_bytes() == (runs / "naive" / "report.html").read_bytes()
    with pytest.raises(UserError, match="is a folder"):
        write_report([runs / "naive"], tmp_path)
