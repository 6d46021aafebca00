"""Scores as tables: how the runs compare, and each benchmark with its interval."""

from collections.abc import Mapping, Sequence

from clmed.results.comparison import Comparison
from clmed.results.metrics import ACCURACY, NATS, WHOLE, is_accuracy, lower_is_better
from clmed.results.points import measured_points
from clmed.results.report.tables import NONE, Cell, Column, Table, estimated, number, score, text, tone_of, unit
from clmed.results.runs import Run
from clmed.results.table import tokens_text


def overview(compared: Comparison) -> Table:
    """A row for each run or strategy: gain, retention, forgetting, cost, front."""
    several = compared.by == "strategy"
    columns = [
        Column(heading="strategy" if several else "run", numeric=False),
        Column(heading="gain", hint="the mean change on the domain's benchmarks, in percentage points"),
        Column(heading="retention", hint="the mean change on the general benchmarks, in percentage points"),
        Column(heading="retained?", numeric=False, hint=f"by less than {100 * compared.margin:g} points"),
        Column(heading="forgetting", hint="how far below the best earlier point, in percentage points", minor=True),
        *([Column(heading="seeds", minor=True)] if several else []),
        Column(heading="all tokens", minor=True),
        Column(heading="FLOPs", minor=True),
        Column(heading="front", numeric=False, hint="no other has more of gain and retention", minor=True),
    ]
    rows = []
    for row in compared.rows:
        if not row.cells:
            continue
        cells = [
            Cell(text=row.label, note="the reference" if row.reference else ""),
            estimated(row.gain, ACCURACY, mark=row.gain_mark),
            estimated(row.retention, ACCURACY, mark=row.retention_mark),
            text(row.verdict or NONE),
            estimated(row.forgetting, ACCURACY),
            *([number(len(row.seeds), str(len(row.seeds)))] if several else []),
            number(row.all_tokens, tokens_text(row.all_tokens or 0)),
            number(row.flops, f"{row.flops or 0:.3g}"),
            text("on the front" if row.on_front else NONE),
        ]
        rows.append(cells)
    caption = (
        f"Gain, retention and cost, with 95 % intervals; better and worse: than {compared.reference}, corrected for "
        "the number of comparisons"
    )
    return Table(name="overview-table", caption=caption, columns=columns, rows=rows)


def benchmark_table(compared: Comparison, members: Mapping[str, Sequence[Run]]) -> Table:
    """A row for each benchmark and run or strategy: base, last point, change with its interval, verdict."""
    single = len(members) == 1
    rows = []
    for name in compared.benchmarks:
        for row in (row for row in compared.rows if name in row.cells):
            cell, runs = row.cells[name], members[row.label]
            worst = _worst(runs, name, cell.metric)
            shown = [f"{_shots(runs[0], name)}-shot"] if is_accuracy(cell.metric) else []
            asked = _tokens(runs[0], name) if cell.metric == NATS else cell.questions
            rows.append(
                [
                    Cell(text=name, note=", ".join([cell.role, *shown, unit(cell.metric)])),
                    *([] if single else [text(row.label)]),
                    score(_mean(runs, name, cell.metric, 0), cell.metric),
                    score(worst, cell.metric),
                    score(_mean(runs, name, cell.metric, None), cell.metric),
                    estimated(cell.change, cell.metric, mark=cell.mark, tone=tone_of(cell.change, cell.metric)),
                    text(cell.verdict or NONE),
                    number(asked, f"{asked:,}"),
                ]
            )
    columns = [
        Column(heading="benchmark", numeric=False),
        *([] if single else [Column(heading=compared.by, numeric=False)]),
        Column(heading="base", minor=not single),
        Column(heading="worst", hint="the worst score at any measurement", minor=True),
        Column(heading="now"),
        Column(heading="change"),
        Column(heading="retained?", numeric=False, minor=True),
        Column(heading="questions", hint="of a perplexity: the tokens measured", minor=True),
    ]
    caption = "Each benchmark before and after training; changes in percentage points or nats per token, 95 % intervals"
    belongs = [row[0].text for row in rows]
    return Table(
        name="score-table", caption=caption, columns=columns, rows=rows, filterable=len(rows) > 12, belongs=belongs
    )


def point_table(compared: Comparison, named: Mapping[str, Run]) -> Table:
    """A row for each measurement point of each run: the numbers of the forgetting curves."""
    metrics = {name: cell.metric for row in compared.rows for name, cell in row.cells.items()}
    shown = [name for name in compared.benchmarks if name in metrics]
    rows = []
    for label, run in named.items():
        for point in measured_points(run.rows):
            scores = [run.matrix.get((name, WHOLE, metrics[name]), {}).get(point.number) for name in shown]
            rows.append(
                [
                    *([text(label)] if len(named) > 1 else []),
                    text(point.name),
                    number(point.tokens, tokens_text(point.tokens)),
                    *(score(value, metrics[name]) for name, value in zip(shown, scores, strict=True)),
                ]
            )
    columns = [
        *([Column(heading="run", numeric=False)] if len(named) > 1 else []),
        Column(heading="measured after", numeric=False),
        Column(heading="domain tokens"),
        *(Column(heading=f"{name} ({unit(metrics[name])})") for name in shown),
    ]
    caption = "Every measurement: the numbers of the curves"
    return Table(name="point-table", caption=caption, columns=columns, rows=rows, filterable=len(rows) > 12)


def _mean(runs: Sequence[Run], benchmark: str, metric: str, point: int | None) -> float | None:
    """Over the seeds, at a point or at the last one."""
    found = [run.matrix.get((benchmark, WHOLE, metric), {}) for run in runs]
    values = [
        points[run.last if point is None else point]
        for run, points in zip(runs, found, strict=True)
        if (run.last if point is None else point) in points
    ]
    return sum(values) / len(values) if values else None


def _worst(runs: Sequence[Run], benchmark: str, metric: str) -> float | None:
    pick = max if lower_is_better(metric) else min
    values = [value for run in runs for value in run.matrix.get((benchmark, WHOLE, metric), {}).values()]
    return pick(values, default=None)


def _shots(run: Run, benchmark: str) -> int:
    return next((row["shots"] or 0 for row in run.whole if row["benchmark"] == benchmark), 0)


def _tokens(run: Run, perplexity: str) -> int:
    """How many tokens a perplexity is a mean over: what it is compared by are rows of text."""
    return next((row.get("questions", 0) for row in run.whole if row["benchmark"] == perplexity), 0)
