"""What a run wrote, as pandas data frames. docs/notebooks.md tells of their columns.

A frame has these columns always, with no rows too; what only some rows have (a source's loss, what a strategy adds)
comes after them. A missing number is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clmed.results.answers import QUESTION
from clmed.results.comparison import Comparison
from clmed.results.comparison.rows import columns_of
from clmed.results.metrics import Rows, primary
from clmed.results.rundir import Row, RunDirectory

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TEXT, WHOLE, NUMBER, YES = "str", "int64", "float64", "bool"
SCORES = {
    "point": WHOLE, "experience": TEXT, "final": YES, "tokens": WHOLE, "all_tokens": NUMBER, "bytes": NUMBER,
    "flops": NUMBER, "train_seconds": NUMBER, "role": TEXT, "benchmark": TEXT, "shots": WHOLE, "category": TEXT,
    "metric": TEXT, "score": NUMBER, "questions": WHOLE, "seconds": NUMBER,
}  # fmt: skip
TRAINING = {
    "experience": TEXT, "step": WHOLE, "tokens": WHOLE, "all_tokens": WHOLE, "bytes": WHOLE, "flops": NUMBER,
    "time": NUMBER, "loss": NUMBER, "grad_norm": NUMBER, "lr": NUMBER, "tokens_per_second": NUMBER,
    "peak_memory": NUMBER,
}  # fmt: skip
ANSWERS = {
    "point": WHOLE, "experience": TEXT, "trained_tokens": WHOLE, "benchmark": TEXT, "index": WHOLE,
}  # fmt: skip


COMPARED = ("gain", "retention", "forgetting")
COSTS = ("tokens", "all_tokens", "flops", "seconds")
JUDGED = ("gain_mark", "retention_mark", "verdict", "on_front", "reference", "state")
OTHERS = {"label", "strategy", "seeds", *COSTS, *JUDGED} | {
    f"{n}{end}" for n in COMPARED for end in ("", "_low", "_high")
}


def scores(rows: Sequence[Row]) -> DataFrame:
    """results.jsonl: a row for each measurement point, benchmark, category and metric."""
    import pandas

    return _typed(pandas.DataFrame(rows), SCORES)


def training(rows: Sequence[Row]) -> DataFrame:
    """train.jsonl: a row for each step."""
    import pandas

    return _typed(pandas.DataFrame(rows), TRAINING)


def answers(run: RunDirectory, rows: Sequence[Row]) -> DataFrame:
    """answers/: a row for each measurement point, benchmark and question (of a perplexity benchmark: row of text).

    rows: of results.jsonl, which say where each point stands.
    """
    import pandas

    found = []
    asked: dict[str, str] = {}  # by hash: it is kept with the answers of the base
    for (point, benchmark), row in {(row["point"], row["benchmark"]): row for row in rows}.items():
        if run.has_answers(point, benchmark):
            place = {"point": point, "experience": row["experience"], "trained_tokens": row["tokens"]}
            kept = pandas.DataFrame(run.answers(point, benchmark)).assign(**place)
            if QUESTION in kept:
                asked |= dict(zip(kept["prompt_hash"], kept[QUESTION], strict=True))
            elif "prompt_hash" in kept and asked:
                kept[QUESTION] = kept["prompt_hash"].map(asked)
            found.append(kept)
    return _typed(pandas.concat(found, ignore_index=True) if found else pandas.DataFrame(), ANSWERS)


def matrix(rows: Rows) -> DataFrame:
    """R: the score of each benchmark (a column) in its primary metric at each measurement point (a row)."""
    import pandas

    return pandas.DataFrame(primary(rows)).rename_axis(index="point", columns="benchmark").sort_index()


def by_benchmark(values: Mapping[str, float], name: str) -> Series[float]:
    """A value of each benchmark."""
    import pandas

    return pandas.Series(values, name=name, dtype=NUMBER).rename_axis("benchmark")


def compared(comparison: Comparison) -> DataFrame:
    """A row for each run or strategy; an estimate is three columns: gain, gain_low, gain_high (the 95 % interval)."""
    import pandas

    rows = []
    columns = columns_of(comparison.benchmarks, OTHERS, ("", "_low", "_high"))
    for row in comparison.rows:
        found: dict[str, Any] = {"label": row.label, "strategy": row.strategy, "seeds": len(row.runs)}
        estimates = {name: getattr(row, name) for name in COMPARED}
        estimates |= {columns[name]: cell.change for name, cell in row.cells.items()}
        for name, estimate in estimates.items():
            value = (math.nan,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
            found |= dict(zip((name, f"{name}_low", f"{name}_high"), value, strict=True))
        costs = {name: getattr(row, name) for name in COSTS}
        found |= {name: math.nan if cost is None else float(cost) for name, cost in costs.items()}
        judged = {"gain_mark": row.gain_mark, "retention_mark": row.retention_mark, "verdict": str(row.verdict or "")}
        rows.append(found | judged | {"on_front": row.on_front, "reference": row.reference, "state": row.state})
    frame = pandas.DataFrame(rows).set_index("label")
    frame.attrs["notes"] = list(comparison.notes)
    return frame


def _typed(frame: DataFrame, columns: Mapping[str, str]) -> DataFrame:
    others = [name for name in frame.columns if name not in columns]
    frame = frame.reindex(columns=[*columns, *others])
    # A whole number cannot be NaN.
    return frame.astype(
        {name: NUMBER if kind == WHOLE and frame[name].isna().any() else kind for name, kind in columns.items()}
    )
