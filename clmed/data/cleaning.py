"""What sources hold that training should not: copies of earlier documents, and questions of the benchmarks.

Both are found once for the content of the files and kept in the cache. What is to be dropped is given as record
numbers to whatever makes rows, so that it does not depend on how many processes make them.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clmed.config import ExperimentConfig, SourceConfig, fingerprint, resolve
from clmed.data import contamination, duplicates, scanning, units
from clmed.data.cache import build_once, cache_dir
from clmed.data.contamination import Asked, QuestionIndex
from clmed.data.duplicates import Duplicate, find_duplicates
from clmed.data.rows import Part, source_fingerprint
from clmed.data.scanning import Batch, batches, part_of_record, size_of

log = logging.getLogger(__name__)

LeftOut = Mapping[str, frozenset[int]]
"""Source -> the numbers of the records that nothing is trained on; every source that is cleaned is in it."""
Watch = Callable[[str, Iterable[Batch]], Iterable[Batch]]
"""watch(what, batches) passes the batches on, and shows how it gets on."""


def unseen(what: str, found: Iterable[Batch]) -> Iterable[Batch]:
    """Show nothing."""
    return found


class Searched:
    """The questions to look for; their index is made when a source is searched for the first time."""

    def __init__(self, questions: Sequence[Asked]) -> None:
        self.questions = questions

    @cached_property
    def index(self) -> QuestionIndex:
        """Their index."""
        return QuestionIndex(self.questions)

    @cached_property
    def fingerprint(self) -> str:
        """What tells them from other questions."""
        return fingerprint([asdict(question) for question in self.questions])


@dataclass(frozen=True, kw_only=True)
class Touch:
    """Record `number`, in the given part of its source (None: no document), touches a question: its place among those
    searched. share: of the question that the record holds (see clmed.data.contamination)."""

    number: int
    part: Part | None
    question: int
    share: float

    @property
    def whole(self) -> bool:
        """Whether the question itself is there, not just some words of it."""
        return self.share >= contamination.HALF


def left_out(config: ExperimentConfig, searched: Searched, watch: Watch = unseen) -> LeftOut:
    """What `deduplicate` and `decontaminate` drop, also told in a warning."""
    last = max((place for place, source in enumerate(config.data.values(), 1) if source.deduplicate), default=0)
    copies = copies_in(config, list(config.data)[:last], watch)
    dropped = {}
    for name, source in config.data.items():
        twice = {copy.number for copy in copies[name]} if source.deduplicate else set()
        held = {each.number for each in touches_in(config, name, searched, watch)} if source.decontaminate else set()
        if source.deduplicate or source.decontaminate:
            dropped[name] = frozenset(twice | held)
        if twice or held:
            log.warning(
                "data.%s: %s documents that repeat earlier ones and %s with text of benchmark questions are left out",
                *(name, f"{len(twice):,}", f"{len(held - twice):,}"),
            )
    return dropped


def copies_in(config: ExperimentConfig, names: Sequence[str], watch: Watch = unseen) -> dict[str, list[Duplicate]]:
    """The documents of each source that repeat earlier ones, of itself or of the sources named before it."""
    every = {name: (config.data[name], resolve(config, config.data[name].path)) for name in names}

    def find() -> dict[str, list[dict[str, Any]]]:
        streams = {name: watch(f"looking for duplicates in {name}", batches(*each)) for name, each in every.items()}
        found = find_duplicates(streams, size=sum(size_of(*each) for each in every.values()))
        return {name: [asdict(copy) for copy in copies] for name, copies in found.items()}

    key = [[name, source_fingerprint(*each)] for name, each in every.items()]
    return {
        name: [Duplicate(**copy | {"of": copy["of"] and tuple(copy["of"])}) for copy in copies]
        for name, copies in (_kept("duplicates", key, find) if names else {}).items()
    }


def touches_in(config: ExperimentConfig, name: str, searched: Searched, watch: Watch = unseen) -> list[Touch]:
    """The documents of a source that touch questions, each with each question, in the order of the file."""
    source, local = config.data[name], resolve(config, config.data[name].path)

    def find() -> list[dict[str, Any]]:
        found = watch(f"looking for test questions in {name}", batches(source, local))
        return [asdict(touch) for batch in found for touch in _touches(source, local, batch, searched.index)]

    return [
        Touch(**touch) for touch in _kept("questions", [source_fingerprint(source, local), searched.fingerprint], find)
    ]


def _touches(source: SourceConfig, local: Path | None, batch: Batch, index: QuestionIndex) -> Iterator[Touch]:
    hits = index.search(batch.units)
    for text, question, share in zip(hits.text.tolist(), hits.question.tolist(), hits.share.tolist(), strict=True):
        part = part_of_record(source, local, batch.numbers[text], batch.records[text])
        yield Touch(number=batch.numbers[text], part=part, question=question, share=share)


def _kept(kind: str, key: Any, find: Callable[[], Any]) -> Any:
    """What `find` finds, from the cache or found now; several processes may ask at the same time."""
    code = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (contamination, duplicates, units)]
    code += [Path(scanning.__file__).read_text(encoding="utf-8"), Path(__file__).read_text(encoding="utf-8")]
    folder = cache_dir() / "cleaning" / f"{kind}-{fingerprint([key, code])}"

    def make(partial: Path) -> None:
        (partial / "found.json").write_text(json.dumps(find()))

    return json.loads((build_once(folder, make) / "found.json").read_text())
