"""What a source holds, counted: documents, tokens, lengths, and how well its rows are filled."""

from dataclasses import dataclass

from clmed.data.corpus import Corpus
from clmed.data.rows import Counts, EmptyPartError, Part, counts

PARTS: tuple[Part, ...] = ("train", "fisher", "heldout")


@dataclass(frozen=True, kw_only=True)
class SourceStatistics:
    """One source in rows of `length` tokens: the counts of each part that holds a document (see `Counts`)."""

    name: str
    length: int
    parts: dict[Part, Counts]

    def total(self, of: str) -> int:
        """Sum over the parts of a count: documents, rows, tokens, supervised, bytes, cut or untaught."""
        return sum(int(getattr(part, of)) for part in self.parts.values())

    @property
    def skipped(self) -> int:
        """Records without a text, a question or an answer; every part has seen all of them."""
        return max((part.skipped for part in self.parts.values()), default=0)

    @property
    def longest(self) -> int:
        """Tokens of the longest document, before it is cut."""
        return max((part.longest for part in self.parts.values()), default=0)

    @property
    def histogram(self) -> list[tuple[int, int, int]]:
        """(shortest, longest, documents) by length in tokens before cutting, in powers of two: 1, 2 to 3, 4 to 7, …"""
        sizes = [0] * max((len(part.lengths) for part in self.parts.values()), default=0)
        for part in self.parts.values():
            for octave, number in enumerate(part.lengths):
                sizes[octave] += number
        return [(2**octave, 2 ** (octave + 1) - 1, number) for octave, number in enumerate(sizes)]

    @property
    def share_cut(self) -> float:
        """Share of the documents that lost their end, or all of it, because they are longer than a row."""
        return self.total("cut") / max(1, self.total("documents"))

    @property
    def utilisation(self) -> float:
        """Share of all positions of the rows that hold a token; the rest is padding."""
        return self.total("tokens") / max(1, self.total("rows") * self.length)

    @property
    def fewest_rows(self) -> int:
        """No packing could do with fewer rows: the tokens of each part over the length, rounded up."""
        return sum(-(-part.tokens // self.length) for part in self.parts.values())


def source_statistics(corpus: Corpus, name: str) -> SourceStatistics:
    """Count the source `name` of a corpus, all its parts; the rows are made (or found in the cache) as for a run.

    Raises UserError for a name that is no source, and for input that cannot be used (with the file and the line).
    """
    parts: dict[Part, Counts] = {}
    for part in PARTS:
        if part != "train" and name in corpus.sources and not getattr(corpus.sources[name], part):
            continue
        try:
            parts[part] = counts(corpus.rows(name, part).data)
        except EmptyPartError:  # a small source may leave a small part without a document
            if part == "train":
                raise
    return SourceStatistics(name=name, length=corpus.length, parts=parts)
