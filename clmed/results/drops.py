"""Format or knowledge? Of an accuracy that fell since the base: what calibration and shots give back, what they do not.

A model may forget, or only answer in another form. What it says in the right form when its prior for letters is taken
out, or when examples show the form, it still knows. From the accuracies of one benchmark at the base and later:

    drop_calibration        what calibration gives back of the loss (by letter, one right letter)
    drop_shots              what shots give back (`format_check`, where the benchmark has shots)
    drop_format             what these give back together
    drop_knowledge          what they do not; the last two add up to the loss
    drop_text               the loss by the options' texts, where letters play no part (`format_check`)
    letter_shift_from_base  half the sum over letters of |share among predictions now - then|: 0 to 1

The loss is the one without shots where that is measured, and else the benchmark's own. Where the answers to the
questions are known, each of these but the shift has its 95 % interval, `low` and `high`: what other questions would
have given, within subjects where the benchmark is averaged over them (`statistics/bootstrap.py`). The letters' prior
is taken as it was found.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clmed.results.metrics import ACCURACY, WHOLE, Rows, last_point
from clmed.results.statistics.bootstrap import generator, interval, question_draws

CALIBRATED = "_calibrated"
NO_SHOTS, TEXT = "0_shot", "text"
PLAIN = f"{ACCURACY}_{NO_SHOTS}"
WAYS = ("", CALIBRATED, f"_{NO_SHOTS}", f"_{NO_SHOTS}{CALIBRATED}", f"_{TEXT}")
"""How the names end of the accuracies that a drop is reckoned from, and of the predictions in the record."""
DRAWS = 2_000

Answers = Mapping[str, Sequence[Any]]


def against_base(
    base: Rows, now: Rows, before: Answers | None = None, after: Answers | None = None, *, by_subject: bool = False
) -> list[dict[str, Any]]:
    """The further rows of a later point, from the rows of one benchmark at point 0 and now; nothing where none.

    before, after: the record of its questions then and now; by_subject: whether scores average over subjects.
    """
    first, later = ({row["metric"]: row for row in rows if row["category"] == WHOLE} for rows in (base, now))
    losses = {
        way: first[metric]["score"] - later[metric]["score"]
        for way in WAYS
        if (metric := f"{ACCURACY}{way}") in first and metric in later
    }
    found = split(losses)
    common = {"category": WHOLE, "questions": later[ACCURACY]["questions"]} if "" in losses else {}
    rows = [{**common, "metric": metric, "score": value} for metric, value in found.items()]
    if found and before is not None and after is not None and (each := _by_question(before, after, [*losses])):
        strata = np.array(after["subject"]) if by_subject else None
        draws = question_draws(np.column_stack([*split(each).values()]), strata, rng=generator(0), draws=DRAWS)
        for row, column in zip(rows, draws.T, strict=True):
            ends = interval(row["score"], column)
            row |= {"low": ends.low, "high": ends.high}
    if CALIBRATED in losses and "" in losses:
        shift = distance(_letters(base), _letters(now))
        rows.append({**common, "metric": "letter_shift_from_base", "score": shift})
    return rows


def split(losses: Mapping[str, Any]) -> dict[str, Any]:
    """What is given back of the losses of accuracy, in points or in arrays of them, by WAYS."""
    if "" not in losses:
        return {}
    own, plain = losses[""], f"_{NO_SHOTS}" if f"_{NO_SHOTS}" in losses else ""
    found = {"drop_shots": losses[plain] - own} if plain else {}
    if f"{plain}{CALIBRATED}" in losses:
        found["drop_calibration"] = losses[plain] - losses[f"{plain}{CALIBRATED}"]
    if found:
        left = losses.get(CALIBRATED, own)
        found |= {"drop_format": losses[plain] - left, "drop_knowledge": left}
    if f"_{TEXT}" in losses:
        found["drop_text"] = losses[f"_{TEXT}"]
    return found


def _by_question(before: Answers, after: Answers, ways: Sequence[str]) -> dict[str, np.ndarray]:
    """The losses (questions,) of each question; nothing where a way has no column."""
    columns = [f"prediction{way}" for way in ways]
    if any(column not in answers for column in columns for answers in (before, after)):
        return {}
    gold = np.array(after["gold"])
    then, now = (np.array([answers[column] for column in columns]) == gold for answers in (before, after))
    return dict(zip(ways, then.astype(float) - now, strict=True))


def drops(rows: Rows) -> list[str]:
    """At the last point, a sentence for each benchmark that fell and of whose loss something is known."""
    point = last_point(rows)
    told = []
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        whole = [row for row in rows if row["benchmark"] == name and row["category"] == WHOLE]
        base, now = ({row["metric"]: row["score"] for row in whole if row["point"] == p} for p in (0, point))
        metric = PLAIN if PLAIN in now else ACCURACY
        points = {key: 100 * value for key, value in now.items() if key.startswith("drop_")}
        ends = {
            row["metric"]: (100 * row["low"], 100 * row["high"])
            for row in whole
            if row["point"] == point and "low" in row
        }
        loss = 100 * (base.get(metric, 0.0) - now.get(metric, 0.0))
        if points and loss > 0:
            told.append(_told(name, points, ends, loss, whole[-1]["shots"]))
    return told


def _told(
    name: str, found: Mapping[str, float], ends: Mapping[str, tuple[float, float]], loss: float, shots: int
) -> str:
    def shown(metric: str) -> str:
        interval = " [{:.1f}, {:.1f}]".format(*ends[metric]) if metric in ends else ""
        return f"{found[metric]:.1f}{interval}".replace("-", "−")

    parts = [f"{name} {_points(-loss)}" + (" without shots" if "drop_shots" in found else "")]
    ways = {"drop_calibration": "calibration", "drop_shots": f"{shots} shots"}
    gives = [f"{way} {shown(metric)}" for metric, way in ways.items() if metric in found]
    if gives:
        both = f", together {shown('drop_format')}" if len(gives) > 1 else ""
        parts.append(f"given back by {', by '.join(gives)}{both} (format)")
        parts.append(f"not given back {shown('drop_knowledge')} (knowledge)")
    if "drop_text" in found:
        parts.append(f"by text {_points(-found['drop_text'])}")
    return "; ".join(parts)


def _points(value: float) -> str:
    return f"{value:+.1f} points".replace("-", "−")


def _letters(rows: Rows) -> dict[str, float]:
    return {row["category"]: row["score"] for row in rows if row["metric"] == "predicted"}


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The total variation distance of two distributions."""
    return sum(abs(one.get(x, 0.0) - other.get(x, 0.0)) for x in {*one, *other}) / 2
