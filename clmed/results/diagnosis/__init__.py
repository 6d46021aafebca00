"""What went wrong in a run, from what it recorded: signatures of failure, each with its numbers and a change to try.

language     the base does not know the language of the domain's text
mismatch     a source stays far from anything the base knows
corpus       the loss on the domain falls, and the exam hardly rises
forgetting   what the base could do is lost

Each is a function of a Record that returns a Finding or nothing. They speak only where intervals allow it: noise is not
diagnosed. Of these Guo & Hua 2023 (arXiv 2311.00204) met falling MMLU and CMMLU scores, and Chinese that suffered from
English among the medical text. The thresholds stand in each module; they are ours.
"""

from pathlib import Path

from clmed.results.diagnosis.corpus import inadequate_corpus
from clmed.results.diagnosis.finding import Finding as Finding
from clmed.results.diagnosis.forgetting import forgetting
from clmed.results.diagnosis.language import unknown_language
from clmed.results.diagnosis.mismatch import mismatch
from clmed.results.diagnosis.record import Record as Record
from clmed.results.metrics import NATS, is_accuracy, primary_metrics
from clmed.results.runs import open_runs

SIGNATURES = (unknown_language, mismatch, inadequate_corpus, forgetting)


def diagnose(run: Path | Record) -> list[Finding]:
    """Everything that the signatures find in a run, as far as it has been measured.

    Raises UserError if there is no run, or a file of it is damaged.
    """
    record = _record(run)
    record.refuse_if_damaged()
    return [finding for signature in SIGNATURES if (finding := signature(record)) is not None]


def blind_spots(run: Path | Record) -> list[str]:
    """Which signatures cannot be seen in what the run recorded, and what would show them."""
    record = _record(run)
    familiar = record.familiarity
    found = []
    if not record.point:
        found.append("corpus, forgetting: nothing has been measured after the base yet")
    elif not [change for change in record.changes("gain") if not change.text]:
        found.append(f"corpus: {_why_none(record, 'gain')}")
    if record.point and not record.changes("retention"):
        found.append(f"forgetting: {_why_none(record, 'retention')}")
    if not familiar:
        found.append("language, mismatch: the run has not looked at its sources yet (sources.json)")
    elif not [source for source in familiar if source.general]:
        found.append("language, mismatch: no general text to compare with; measure some ({perplexity: SOURCE})")
    return found


def _record(run: Path | Record) -> Record:
    return run if isinstance(run, Record) else Record(run=open_runs([run])[0])


def _why_none(record: Record, role: str) -> str:
    """Why nothing is known of the benchmarks of a role: there are none, or their answers were not kept."""
    metrics, roles = primary_metrics(record.rows), {row["benchmark"]: row["role"] for row in record.rows}
    told = [name for name, metric in metrics.items() if is_accuracy(metric) or (metric == NATS and role != "gain")]
    asked = [name for name in told if roles[name] == role]
    if asked:
        return f"no answers of {', '.join(asked)} were kept"
    return "no exam under evaluation.gain" if role == "gain" else "nothing under evaluation.retention"
