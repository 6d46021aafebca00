"""The first domain loss is far above that of general text, and stays there: by source."""

from clmed.results.diagnosis import changes
from clmed.results.diagnosis.finding import Finding
from clmed.results.diagnosis.language import is_unknown
from clmed.results.diagnosis.record import Familiarity, Record, span

FAR = 1.0  # nats a token above general text: 2.7 times its perplexity


def mismatch(record: Record) -> Finding | None:
    """Sources that cost FAR more than the costliest general text, before training and in the last steps on them.

    A text that is strange at first and soon learnt is what training is for; one whose language is strange is another
    finding.
    """
    general = [source for source in record.familiarity if source.general]
    last = record.last_losses
    familiar = [source for source in general if source.loss.known and not is_unknown(record, source.script)]
    if not familiar:
        return None
    usual = max(source.loss.high for source in familiar)
    found = [
        source
        for source in record.familiarity
        if source.source in last
        and not is_unknown(record, source.script)
        and min(source.loss.low, last[source.source].low) > usual + FAR
    ]
    if not found:
        return None
    names = [source.source for source in found]
    return Finding(
        signature="mismatch",
        title=f"Mismatch: {', '.join(names)} stays far from anything the base model knows",
        evidence=(
            *(f"{source}; in the last steps {span(last[source.source], 2)}" for source in found),
            *(f"general: {source}" for source in general),
        ),
        meaning=(
            "The loss on this text starts far above that of general text and training does not bring it near. "
            + (
                "The base does no better on it than somebody who knows its words and not their order. "
                if all(_senseless(source) for source in found)
                else ""
            )
            + (
                "It is not the language: general text in the same script is familiar. "
                if {source.script for source in found} <= {source.script for source in general}
                else ""
            )
            + "It may be broken (encoding, columns, markup, order of lines) or of another kind than the model's own "
            "data: look at some documents with `clmed data inspect`, and see what the run is without it."
        ),
        change=changes.without(record.config, names)
        or changes.rehearse(record.config, record.general, ratio=changes.ACROSS_LANGUAGES),
    )


def _senseless(source: Familiarity) -> bool:
    return source.loss.high > source.context_free
