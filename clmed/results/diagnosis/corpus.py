"""Domain loss falls but the exam hardly rises: the text is learnt, and what the exam asks is not in it."""

from collections.abc import Mapping

from clmed.results.diagnosis import changes
from clmed.results.diagnosis.finding import Finding
from clmed.results.diagnosis.record import Record, span
from clmed.results.statistics import Estimate

LEARNT = 0.9  # of the first loss at most, with both intervals: the text has been learnt
RISE = 2.0  # points of accuracy: an exam rises where the whole interval is above
MOST_RISE = 10.0  # points that must be excluded before it is said that an exam does not
FULL = 95.0  # an exam that is passed at the base cannot rise


def inadequate_corpus(record: Record) -> Finding | None:
    """At the end of an experience, where no exam of the domain has risen and every one is large enough to tell."""
    exams = [change for change in record.changes("gain") if not change.text and change.before < FULL]
    flat = [change for change in exams if change.by.low <= RISE and change.by.high < MOST_RISE]
    learnt = {name: (first, last) for name, first, last in _losses(record) if last.high < LEARNT * first.low}
    if not record.ended or not exams or len(flat) < len(exams) or not learnt:
        return None
    return Finding(
        signature="corpus",
        title=f"The corpus is learnt, but {' and '.join(change.benchmark for change in flat)} hardly rises",
        evidence=(
            *(
                f"{name}: {span(first, 2)} -> {span(last, 2)} nats a token, before training to the last steps"
                for name, (first, last) in learnt.items()
            ),
            *(f"point 0 to {record.point}: {change}" for change in flat),
        ),
        meaning=(
            "The model gets better at the text and hardly at the exam, so the text does not hold what the exam "
            "asks, or not in a form that a question calls up (knowledge that is only ever stated is hard to ask for: "
            "arXiv 2309.14316). Other text is needed, or the same facts as questions and answers as well. If the "
            "loss on held-out text does not fall either, the text is being memorised."
        ),
        change=_change(record),
    )


def _losses(record: Record) -> list[tuple[str, Estimate, Estimate]]:
    first: Mapping[str, Estimate] = {source.source: source.loss for source in record.familiarity}
    return [(name, first[name], last) for name, last in record.last_losses.items() if name in first]


def _change(record: Record) -> str:
    """Sources of the domain's kind that the first experience does not read; else the question behind the question."""
    config = record.config
    first, domain = config.stream[0], record.scripts(general=False)
    known = {source.source: source.script for source in record.familiarity}
    unused = [name for name in record.unread if known.get(name, "") in {"", *domain}]
    later = [name for name in record.domain if name not in first.data]
    measured = {benchmark.perplexity for benchmark in (*config.evaluation.gain, *config.evaluation.retention)}
    rehearsed = [name for name in unused if name in measured]
    if more := [*later, *(name for name in unused if name not in rehearsed)]:
        return changes.more_data(config, more)
    text = next((name for name in first.data if config.data[name].heldout and name not in measured), None)
    return changes.measure_text(config, text) if text else changes.slower(config)
