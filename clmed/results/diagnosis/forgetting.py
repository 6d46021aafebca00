"""Retention falls: which benchmarks, which categories, and in which experience."""

from itertools import pairwise

from clmed.errors import UserError
from clmed.results.diagnosis import changes
from clmed.results.diagnosis.finding import Finding
from clmed.results.diagnosis.record import Change, Record
from clmed.results.drops import drops
from clmed.results.metrics import primary_metric
from clmed.results.statistics.flips import flips
from clmed.results.statistics.verdicts import MARGIN

MOST_NATS = 0.1  # that a token of general text may cost more: 10.5 % of perplexity
FAR_NATS = 0.5  # beyond which it is forgetting whatever the exams say, which ask little of how text goes on
WORST = 5  # categories told of a benchmark
NAMED = 3  # questions


def forgetting(record: Record) -> Finding | None:
    """Where the whole interval of a retention benchmark's change lies beyond the margin: 1 point of accuracy.

    Text counts beside an exam that fell, where no exam is measured, and where it costs far more.
    """
    lost = [change for change in record.changes("retention") if _lost(change)]
    exams = [change for change in lost if not change.text]
    far = any(change.text and change.by.low > FAR_NATS for change in lost)
    if not lost or (not exams and not far and any(not change.text for change in record.changes("retention"))):
        return None  # text that costs a little more while no exam is known to have fallen is no forgetting
    evidence = [f"point 0 to {record.point}: {change}" for change in lost]
    for change in exams:
        fallen = [each for each in record.categories(change) if each.by.high < 0]
        evidence += [f"  {each}" for each in sorted(fallen, key=lambda each: each.by.value)[:WORST]]
        evidence.append(_steepest(record, change))
        evidence += _by_name(record, change)
    names = {change.benchmark for change in exams}
    evidence += [sentence for sentence in drops(record.rows) if sentence.partition(" ")[0] in names]
    worst = min(lost, key=lambda change: change.by.value if not change.text else -change.by.value)
    general, domain = record.scripts(general=True), record.scripts(general=False)
    across = bool(general) and bool(domain) and general.isdisjoint(domain)
    return Finding(
        signature="forgetting",
        title=f"Forgetting: {worst.benchmark} lost {_amount(worst)}",
        evidence=tuple(evidence),
        meaning=(
            "Training on the domain has overwritten what the base model could do, and more than a chance choice of "
            f"questions explains. {_remedy(record)}"
        ),
        change=changes.rehearse(
            record.config,
            record.general,
            ratio=changes.ACROSS_LANGUAGES if across else changes.SAME_LANGUAGE,
        ),
    )


def _remedy(record: Record) -> str:
    if set(record.config.strategy) & {"replay", "rewarm", "der", "interleave", "joint"}:
        return (
            "The run rehearses general text already. Categories that are kept beside others that are lost tell what it "
            "rehearses: text of more kinds helps those, a larger share or a lower learning rate helps all."
        )
    return (
        "Rehearsal of general text is the usual remedy (replay in every step, or interleaved steps): a share of 5 % "
        "within a language, about 25 % across languages. What is not rehearsed may still be lost."
    )


def _lost(change: Change) -> bool:
    return change.by.low > MOST_NATS if change.text else change.by.high < -100 * MARGIN


def _amount(change: Change) -> str:
    return f"{change.by.value:.2f} nats a token" if change.text else f"{-change.by.value:.1f} points"


def _by_name(record: Record, change: Change) -> list[str]:
    """Some of the questions that were forgotten, where the run kept what they ask."""
    try:
        found = [flip for flip in flips([record.run], change.benchmark, point=record.point) if flip.question]
    except UserError:  # no answers that are right or wrong
        return []
    told = [f'    "{flip.question}" ({flip.subject}; right: {flip.gold}, now: {flip.now})' for flip in found[:NAMED]]
    return (
        [f"  {len(found):,} answers of {change.benchmark} turned from right to wrong, such as", *told] if told else []
    )


def _steepest(record: Record, change: Change) -> str:
    """Between which two points it fell most."""
    metric = primary_metric(record.rows, change.benchmark)
    scores = record.run.matrix[change.benchmark, change.category, metric]
    where = {row["point"]: row for row in record.rows}
    points = [point for point in scores if point <= record.point]
    before, after = min(pairwise(points), key=lambda pair: scores[pair[1]] - scores[pair[0]])
    return (
        f"  {change.benchmark} fell most between points {before} and {after}, in {where[after]['experience']} "
        f"({where[before]['tokens']:,} to {where[after]['tokens']:,} domain tokens): "
        f"{100 * scores[before]:.1f} -> {100 * scores[after]:.1f} %"
    )
