"""Format or knowledge? Of an accuracy that fell since the base: what calibration and shots give back, what they do not.

A model may forget, or only answer in another form. What it says in the right form when its prior for letters is taken
out, or when examples show the form, it still knows. From the accuracies of one benchmark at the base and later:

    drop_calibration        what calibration gives back of the loss (by letter, one right letter)
    drop_shots              what shots give back (`format_check`, where the benchmark has shots)
    drop_format             what these give back together
    drop_knowledge          what they do not; the last two add up to the loss
    drop_text               the loss by the options' texts, where letters play no part (`format_check`)
    letter_shift_from_base  half the sum over letters of |share among predictions now - then|: 0 to 1

The loss is the one without shots where that is measured, and else the benchmark's own.
"""

from collections.abc import Mapping
from typing import Any

from clmed.results.metrics import ACCURACY, WHOLE, Rows, last_point

CALIBRATED = "_calibrated"
NO_SHOTS, TEXT = "0_shot", "text"
PLAIN = f"{ACCURACY}_{NO_SHOTS}"


def against_base(base: Rows, now: Rows) -> list[dict[str, Any]]:
    """The further rows of a later point, from the rows of one benchmark at point 0 and now; nothing where none."""
    before, after = ({row["metric"]: row for row in rows if row["category"] == WHOLE} for rows in (base, now))

    def loss(metric: str) -> float | None:
        known = metric in before and metric in after
        return before[metric]["score"] - after[metric]["score"] if known else None

    own, plain = loss(ACCURACY), loss(PLAIN)
    loss_calibrated = loss(f"{ACCURACY}{CALIBRATED}")
    if own is None:
        return []
    found: dict[str, float] = {}
    if plain is not None:
        found["drop_shots"] = plain - own
        calibrated_plain = loss(f"{PLAIN}{CALIBRATED}")
    else:
        plain, calibrated_plain = own, loss_calibrated
    if calibrated_plain is not None:
        found["drop_calibration"] = plain - calibrated_plain
    if found:
        left = own if loss_calibrated is None else loss_calibrated
        found |= {"drop_format": plain - left, "drop_knowledge": left}
    if (by_text := loss(f"{ACCURACY}_{TEXT}")) is not None:
        found["drop_text"] = by_text
    if loss_calibrated is not None:
        found["letter_shift_from_base"] = distance(*(_letters(rows) for rows in (base, now)))
    questions = after[ACCURACY]["questions"]
    return [{"category": WHOLE, "metric": m, "score": v, "questions": questions} for m, v in found.items()]


def drops(rows: Rows) -> list[str]:
    """At the last point, a sentence for each benchmark that fell and of whose loss something is known."""
    point = last_point(rows)
    told = []
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        whole = [row for row in rows if row["benchmark"] == name and row["category"] == WHOLE]
        base, now = ({row["metric"]: row["score"] for row in whole if row["point"] == p} for p in (0, point))
        metric = PLAIN if PLAIN in now else ACCURACY
        points = {key: 100 * value for key, value in now.items() if key.startswith("drop_")}
        loss = 100 * (base.get(metric, 0.0) - now.get(metric, 0.0))
        if points and loss > 0:
            told.append(_told(name, points, loss, whole[-1]["shots"]))
    return told


def _told(name: str, found: Mapping[str, float], loss: float, shots: int) -> str:
    parts = [f"{name} {_points(-loss)}" + (" without shots" if "drop_shots" in found else "")]
    ways = {"drop_calibration": "calibration", "drop_shots": f"{shots} shots"}
    gives = [f"{way} {found[metric]:.1f}" for metric, way in ways.items() if metric in found]
    if gives:
        both = f", together {found['drop_format']:.1f}" if len(gives) > 1 else ""
        parts.append(f"given back by {', by '.join(gives)}{both} (format)")
        parts.append(f"not given back {found['drop_knowledge']:.1f} (knowledge)")
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
