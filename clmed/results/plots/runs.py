"""What figures are drawn from: groups of runs that differ in their seeds, as clmed/results/groups.py makes them."""

import math
from collections.abc import Iterable, Sequence

from clmed.results.groups import Group
from clmed.results.metrics import WHOLE, as_shown, primary_metric
from clmed.results.runs import Run
from clmed.results.table import fold

LABEL_WIDTH, LONGEST = 14, 22  # characters on a line of a label, if it can be broken and if not
MOST_LINES = 4


def label(group: Group) -> str:
    """The name, how many seeds, and what is not complete; broken into lines."""
    notes = [f"{len(group.runs)} seeds"] if len(group.runs) > 1 else []
    states = [run.state for run in group.runs if run.state != "complete"]
    for state in dict.fromkeys(states):
        notes.append(state if len(group.runs) == 1 else f"{states.count(state)} {state}")
    note = f"({', '.join(notes)})" if notes else ""
    short = f"{group.label} {note}".rstrip()
    return short if len(short) <= LABEL_WIDTH else f"{folded(group.label)}\n{note}".rstrip()


def folded(name: str) -> str:
    """A label in lines; what cannot be broken and is too long, or has too many lines, ends in an ellipsis."""
    lines = [
        line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in fold(name, LABEL_WIDTH).split("\n")
    ]
    return "\n".join(lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} …"])


def words(run: Run) -> Iterable[str]:
    """Every name that a figure may show."""
    for row in run.rows:
        yield from (row["benchmark"], row["experience"], row["category"])


def measured(run: Run, benchmark: str, category: str = WHOLE) -> dict[int, tuple[float, float]]:
    """Point -> (tokens, score); accuracies in %. What is not finite is left out."""
    metric = primary_metric(run.rows, benchmark)
    tokens = {row["point"]: row["tokens"] for row in run.rows}
    points = run.matrix.get((benchmark, category, metric), {})
    scale, _ = as_shown(metric)
    return {point: (tokens[point], scale * score) for point, score in points.items() if math.isfinite(score)}


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean over seeds (Student's t), from three values on; fewer tell too little."""
    if len(values) < 3:
        return None
    import numpy as np
    from scipy.special import stdtrit

    found = np.asarray(values, dtype=float)
    half = stdtrit(len(found) - 1, 0.975) * found.std(ddof=1) / math.sqrt(len(found))
    return float(found.mean() - half), float(found.mean() + half)
