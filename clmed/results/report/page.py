"""What the page says, from the runs: a summary, and sections of tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from clmed.results.comparison import Comparison
from clmed.results.comparison.compare import compare_runs
from clmed.results.groups import by_run, by_strategy
from clmed.results.metrics import is_accuracy
from clmed.results.report import facts, figures, losses, scores
from clmed.results.report.drawing import Drawing
from clmed.results.report.findings import Found, findings
from clmed.results.report.summary import sentences
from clmed.results.report.tables import Table
from clmed.results.report.words import WORDS
from clmed.results.runs import Run, nothing_measured, open_runs


@dataclass(frozen=True, kw_only=True)
class Section:
    """details: heading and text of what is folded away; words: and what they mean."""

    name: str
    heading: str
    figures: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    findings: Sequence[Found] = ()
    details: Sequence[tuple[str, str]] = ()
    words: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class RunLine:
    label: str
    state: str
    told: str
    problems: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    title: str
    summary: Sequence[str]
    runs: Sequence[RunLine]
    sections: Sequence[Section]


def make_page(paths: Sequence[Path]) -> Page:
    """Raises UserError where a path is no run, or none of the runs has results."""
    runs = open_runs(paths)
    named = {group.label: group.runs[0] for group in by_run(runs)}  # labels that all sections use
    measured = {label: run for label, run in named.items() if run.whole}
    if not measured:
        raise nothing_measured(runs, "reported")
    compared = _compare(list(measured.values()))
    sections = _sections(measured, compared)
    lines = [_line(label, run) for label, run in named.items()]  # last: problems are found by reading
    title = next(iter(named)) if len(named) == 1 else f"{len(named)} runs compared"
    return Page(title=title, summary=sentences(compared), runs=lines, sections=sections)


def _compare(runs: Sequence[Run]) -> Comparison:
    """By strategy where some strategy has several seeds, else run by run."""
    several = any(len(group.runs) > 1 for group in by_strategy(runs))
    return compare_runs(runs, by="strategy" if several else "run", allow_mismatch=True)


def _line(label: str, run: Run) -> RunLine:
    strategy = ", ".join(run.strategy) or "naive"
    told = [*([f"strategy {strategy}"] if strategy != run.name else []), f"seed\N{NO-BREAK SPACE}{run.seed}"]
    if run.whole and run.state != "complete":
        told.append(f"measured {run.last} times since the base model")
    told += filter(None, [run.doing])
    return RunLine(label=label, state=run.state, told="; ".join(told), problems=run.problems)


def _sections(named: Mapping[str, Run], compared: Comparison) -> list[Section]:
    by_path = {run.path: run for run in named.values()}
    members = {row.label: [by_path[path] for path in row.runs] for row in compared.rows}
    exams = _exams(compared)
    found, blind = findings(named)
    drawn, problems = figures.draw(list(named.values()), list(named))
    sections = [
        Section(
            name="scores",
            heading="Gained and lost",
            tables=[
                *([scores.overview(compared)] if len(members) > 1 else []),
                scores.benchmark_table(compared, members),
                scores.point_table(compared, named),
            ],
            notes=[*compared.notes, *problems],
        ),
        Section(name="diagnosis", heading="What may be wrong", findings=found, notes=blind),
        Section(name="categories", heading="What lost most", tables=_present(losses.category_table(compared, members))),
        Section(
            name="flips",
            heading="Forgotten questions",
            tables=_present(losses.lost_and_won(named, exams), losses.flip_table(members, exams)),
        ),
        Section(name="training", heading="What it was trained on", tables=_present(facts.mixture(named))),
        Section(name="cost", heading="Cost", tables=[facts.cost(named)]),
        Section(
            name="configuration",
            heading="Configuration" if len(named) == 1 else "Differences of configuration",
            tables=_present(facts.configurations(named)),
            details=[
                (f"The whole configuration of {one}", facts.configuration_text(run)) for one, run in named.items()
            ],
        ),
        Section(name="environment", heading="Environment", tables=_present(facts.environments(named))),
        Section(name="words", heading="Words", words=WORDS),
    ]
    sections = [
        replace(each, figures=drawn.get(each.name, []), tables=[table for table in each.tables if table.rows])
        for each in sections
    ]
    return [
        each
        for each in sections
        if each.tables or each.findings or each.notes or each.figures or each.details or each.words
    ]


def _exams(compared: Comparison) -> list[str]:
    """The benchmarks in accuracy, what is to be retained first."""
    cells = {name: row.cells[name] for row in compared.rows for name in compared.benchmarks if name in row.cells}
    role: dict[str, Literal[0, 1]] = {name: 0 if cell.role == "retention" else 1 for name, cell in cells.items()}
    return sorted((name for name, cell in cells.items() if is_accuracy(cell.metric)), key=lambda name: role[name])


def _present(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]
