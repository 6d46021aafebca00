"""Which categories and subjects lost most, and which questions were forgotten."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from clmed.results.comparison import Comparison
from clmed.results.metrics import SUBJECT, WHOLE, is_accuracy
from clmed.results.report.answered import Answered, answered
from clmed.results.report.tables import NONE, Cell, Column, Table, estimated, number, p_value, text
from clmed.results.runs import Run
from clmed.results.statistics.bootstrap import generator, question_draws
from clmed.results.statistics.flips import Flip, flips
from clmed.results.statistics.paired import mcnemar, mean
from clmed.results.statistics.uncertain import Uncertain
from clmed.results.statistics.verdicts import ALPHA, holm

MOST_FLIPS = 1200  # rows of the page; more make a phone's browser slow
DRAWS = 10_000
SAME = 1e-6
Members = Mapping[str, Sequence[Run]]


def category_table(compared: Comparison, members: Members) -> Table | None:
    """The change of every category and subject, those that lost most first; coloured where a test, corrected for the
    number of all in the table, tells it from chance."""
    found: dict[tuple[str, str], dict[str, Uncertain]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for label, runs in members.items():
        for row in runs[0].rows:
            name, category = row["benchmark"], row["category"]
            if row["point"] == runs[0].last and category != WHOLE and row["metric"] == _metric(compared, name):
                seeds = [_change(run, name, category, row["metric"]) for run in runs]
                if all(change is not None for change in seeds):
                    found.setdefault((name, category), {})[label] = _uncertain(runs, name, category, seeds)
                    sizes[name, category] = row["questions"]
    if not found:
        return None
    every = [(key, label) for key, changes in found.items() for label in changes]
    corrected = dict(zip(every, holm([found[key][label].p_two_sided() for key, label in every]), strict=True))
    longest = max(abs(change.value) for changes in found.values() for change in changes.values()) or 1.0
    rows, belongs = [], []
    for key, changes in sorted(found.items(), key=lambda item: np.mean([each.value for each in item[1].values()])):
        kind = "subject" if key[1].startswith(SUBJECT) else "category"
        cells = [Cell(text=key[1].removeprefix(SUBJECT).replace("_", " "), note=f"{kind} of {key[0]}")]
        cells.append(number(sizes[key], f"{sizes[key]:,}"))
        belongs.append(key[0])
        for label in members:
            change = changes.get(label)
            sure = change is not None and corrected[key, label] < ALPHA
            tone = "" if change is None or not sure else "better" if change.value > 0 else "worse"
            cell = estimated(None if change is None else change.estimate(), _metric(compared, key[0]), tone=tone)
            cells.append(cell if change is None else replace(cell, bar=change.value / longest))
        rows.append(cells)
    columns = [
        Column(heading="category or subject", numeric=False),
        Column(heading="questions", minor=True),
        *(Column(heading=label if len(members) > 1 else "change") for label in members),
    ]
    caption = (
        "Change since the base model in percentage points with 95 % intervals, the greatest loss first; bold where "
        "it is more than chance after correction for the number of all rows"
    )
    return Table(name="category-table", caption=caption, columns=columns, rows=rows, filterable=True, belongs=belongs)


def _metric(compared: Comparison, benchmark: str) -> str:
    """The primary metric of a benchmark in accuracy; nothing for others."""
    cells = (row.cells.get(benchmark) for row in compared.rows)
    metric = next((cell.metric for cell in cells if cell is not None), "")
    return metric if is_accuracy(metric) else ""


def _change(run: Run, benchmark: str, category: str, metric: str) -> float | None:
    points = run.matrix.get((benchmark, category, metric), {})
    return points[run.last] - points[0] if {0, run.last} <= points.keys() else None


def _uncertain(runs: Sequence[Run], benchmark: str, category: str, changes: Sequence[float | None]) -> Uncertain:
    """The mean over seeds of a change, with its spread where the answers are kept and give the very same scores."""
    seeds = tuple(change for change in changes if change is not None)
    value = sum(seeds) / len(seeds)
    kept = [answered(run, benchmark) for run in runs]
    whole = [each for each in kept if each is not None]
    members = [each.members(category) for each in whole]
    if len(whole) < len(runs) or len({int(which.sum()) for which in members}) != 1 or not members[0].any():
        return Uncertain(value=value, questions=float("nan"), seeds=seeds)
    differences = np.mean([(a.now - a.base)[which] for a, which in zip(whole, members, strict=True)], axis=0)
    subjects = whole[0].subjects[members[0]]
    strata = None if abs(mean(differences) - value) < SAME else subjects
    if strata is not None and abs(mean(differences, strata) - value) >= SAME:
        return Uncertain(value=value, questions=float("nan"), seeds=seeds)
    rng = generator(0, benchmark, category)
    drawn = question_draws(differences[:, None], strata, rng=rng, draws=DRAWS, answers=len(runs))[:, 0]
    return Uncertain(value=value, questions=drawn, seeds=seeds)


def lost_and_won(named: Mapping[str, Run], benchmarks: Sequence[str]) -> Table | None:
    """How many answers turned from right to wrong, and how many from wrong to right."""
    rows = []
    for label, run in named.items():
        for name, asked in _known(run, benchmarks):
            test = mcnemar(int((asked.base > asked.now).sum()), int((asked.base < asked.now).sum()))
            stayed = int((asked.base * asked.now).sum())
            cells = [*([text(label)] if len(named) > 1 else []), text(name), number(test.lost, f"{test.lost:,}")]
            cells += [number(test.won, f"{test.won:,}"), number(stayed, f"{stayed:,}")]
            cells += [number(len(asked.base), f"{len(asked.base):,}"), p_value(test.mid_p)]
            rows.append(cells)
    columns = [
        *([Column(heading="run", numeric=False)] if len(named) > 1 else []),
        Column(heading="benchmark", numeric=False),
        Column(heading="forgotten", hint="right at the base, wrong now"),
        Column(heading="learnt", hint="wrong at the base, right now"),
        Column(heading="kept", hint="right at the base and now", minor=True),
        Column(heading="questions", minor=True),
        Column(heading="p", hint="McNemar's test, mid-p: that as many were forgotten as learnt"),
    ]
    caption = "Answers that changed since the base model"
    return Table(name="changed-table", caption=caption, columns=columns, rows=rows) if rows else None


def flip_table(members: Members, benchmarks: Sequence[str]) -> Table | None:
    """The questions that the base answered rightly and the last point does not; over seeds, those of most first."""
    every = {label: [flip for name in benchmarks for flip in _flips(runs, name)] for label, runs in members.items()}
    total, each = sum(map(len, every.values())), MOST_FLIPS // max(len(members), 1)
    if not total:
        return None
    known = any(flip.question for found in every.values() for flip in found)
    several, seeds = len(members) > 1, any(len(runs) > 1 for runs in members.values())
    asked = Column(heading="question", numeric=False, hint="of a long one the beginning and the end", wide=True)
    columns = [
        *([Column(heading="run", numeric=False)] if several else []),
        Column(heading="subject", numeric=False),
        Column(heading="index", hint="its place in the file or subject, from 0", minor=known),
        *([asked] if known else []),
        Column(heading="right", numeric=False),
        Column(heading="now says", numeric=False),
        *([Column(heading="seeds", hint="in how many of them")] if seeds else []),
    ]
    rows = [
        [
            *([text(label)] if several else []),
            Cell(text=flip.subject.replace("_", " ") or flip.benchmark, note=flip.benchmark),
            number(flip.index, str(flip.index)),
            *([text(flip.question or NONE)] if known else []),
            text(flip.gold),
            text(flip.now or "nothing"),
            *([Cell(text=f"{flip.runs} of {flip.of}", sort=flip.runs)] if seeds else []),
        ]
        for label, found in every.items()
        for flip in found[:each]
    ]
    caption = "Questions answered rightly by the base model and wrongly now"
    return Table(
        name="flip-table",
        caption=caption,
        columns=columns,
        rows=rows,
        filterable=True,
        belongs=[flip.benchmark for found in every.values() for flip in found[:each]],
        cut=total - len(rows),
    )


def _flips(runs: Sequence[Run], benchmark: str) -> list[Flip]:
    known = [run for run in runs if answered(run, benchmark) is not None]
    return flips(known, benchmark) if known else []


def _known(run: Run, benchmarks: Sequence[str]) -> Iterator[tuple[str, Answered]]:
    for name in benchmarks:
        if (asked := answered(run, name)) is not None:
            yield name, asked
