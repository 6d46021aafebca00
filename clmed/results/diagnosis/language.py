"""Language or medicine: is the domain's text strange to the base because of its language, or because of what it says?

Texts of two languages are compared by the byte, as their tokens differ: a tokenizer without the language's words spends
more tokens on the same text. The language is known by its script, so that this tells Chinese from English, but not
Lithuanian from English.
"""

import math

from clmed.results.diagnosis import changes
from clmed.results.diagnosis.finding import Finding
from clmed.results.diagnosis.record import Familiarity, Record, script_name

MOST_OF_IT = 0.5  # of what the domain costs more than known text is paid for general text of its language as well
FAR = 1.5  # times the bits a byte of the best known general text


def unknown_language(record: Record) -> Finding | None:
    """Where general text of the domain's script costs at least half of the domain's extra bits, beside known text."""
    known = known_text(record)
    foreign = {script for script in record.scripts(general=False) if script and is_unknown(record, script)}
    if known is None or not foreign:
        return None
    general = [source for source in record.familiarity if source.general and source.script in foreign]
    domain = [source for source in record.familiarity if not source.general and source.script in foreign]
    script = script_name(general[0].script)
    return Finding(
        signature="language",
        title=f"Language before content: the base model does not know {script} text",
        evidence=tuple(
            f"{what}, {source}: {bits(source):.2f} bits a byte"
            for what, sources in (("domain", domain), ("general text of its script", general), ("known text", [known]))
            for source in sources
        ),
        meaning=(
            "General text in the domain's script is about as strange to the base model as the domain itself, so it is "
            "the language that is missing first, and the domain's tokens are spent on learning it. "
            + (
                "The tokenizer says little with a token of it, too. "
                if min(source.bytes_per_token for source in general) < known.bytes_per_token / 2
                else ""
            )
            + "Let the model learn the language from general text first, or take a base that knows it."
        ),
        change=changes.first_learn(record.config, "language", [source.source for source in general]),
    )


def is_unknown(record: Record, script: str) -> bool:
    """Whether it is the language, of all sources of the domain in this script, that makes them strange."""
    known = known_text(record)
    general = [bits(source) for source in record.familiarity if source.general and source.script == script]
    domain = [bits(source) for source in record.familiarity if not source.general and source.script == script]
    if known is None or known.script == script or not general or not domain:
        return False
    extra = min(general) - bits(known)
    return min(general) > FAR * bits(known) and extra > MOST_OF_IT * (min(domain) - bits(known))


def known_text(record: Record) -> Familiarity | None:
    """The general text that costs the base model least."""
    return min((source for source in record.familiarity if source.general), key=bits, default=None)


def bits(source: Familiarity) -> float:
    """A byte."""
    return source.loss.value / source.bytes_per_token / math.log(2)
