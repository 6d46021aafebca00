"""Test questions in training text: an index of the questions, past which a corpus streams.

A document *touches* a question when one of these is true (units are those of clmed.data.units: a Chinese character or
a word; punctuation and case do not count):

- They share 13 units in a row, from the stem or from one option. An n-gram that more than 10 questions have is the
  wording of the benchmark (the instruction of MMLU's moral scenarios) and does not count.
- The stem is shorter than 13 units, the whole of it stands in the document, and there follow either all options, in any
  order, or directly the right ones; stem and right options have then at least 8 units in all. So a short stem alone,
  "输尿管", is nothing.

It *holds* the question when these are at least half of the stem's 13-grams, or when it is a short stem: thirteen
Chinese characters can be the title of a law or the wording of an exam ("的患者，首选的治疗药物是").

Sources: Brown et al., 2020, arXiv 2005.14165, appendix C (n-grams of 8 to 13 words, any of which makes a question
dirty); lm-evaluation-harness, docs/decontamination.md (13). They count no n-gram that occurs in more than 10 training
documents; here it does count, since a question that is repeated is the worst of leaks. Half of a question: Lambert et
al., 2024, arXiv 2411.15124 (Tülu 3), there by 8-grams of tokens.

A paraphrase shares no such n-gram and is not found.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clmed.data.units import Units, units

N = 13
FEWEST = 8  # units of a short stem with its right options, where these alone follow
HALF = 0.5  # of a stem's 13-grams: from here on the question counts as held
COMMON = 10  # questions that may share an n-gram
_ANCHOR = 4  # units by which a short stem is looked for
_BETWEEN = 8  # units that may stand before the options ("the correct answer is")
_LETTERING = 4  # and before each of them ("option B")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A test question, as far as it is searched for; `index` is its row in its file."""

    benchmark: str
    subject: str
    index: int
    stem: str
    options: tuple[str, ...]
    right: tuple[int, ...]  # which of the options are


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Pairs of a text and a question that it touches, each once.

    share: of the stem's 13-grams, those that the text has; 1 for a short stem whose options follow.
    """

    text: np.ndarray
    question: np.ndarray
    share: np.ndarray


class QuestionIndex:
    """The questions of all benchmarks; its memory is in proportion to them, whatever is searched."""

    def __init__(self, questions: Sequence[Asked]) -> None:
        self.questions = questions
        parts = units([part for question in questions for part in (question.stem, *question.options)])
        counts = np.array([1 + len(question.options) for question in questions], dtype=np.int64)
        self.stems = np.cumsum(counts) - counts  # of each question the place of its stem among the parts
        self.sizes, self.hashes = np.diff(parts.bounds), parts.whole()
        starts, grams = parts.grams(N)
        asked = np.repeat(np.arange(len(questions)), counts)[parts.text[starts]]
        stem = self.stems[asked] == parts.text[starts]
        self.stem_grams = _Table(grams[stem], asked[stem], most=COMMON)
        self.option_grams = _Table(grams[~stem], asked[~stem], most=COMMON)
        self.totals = np.bincount(self.stem_grams.owners, minlength=len(questions))
        sizes = self.sizes[self.stems]
        self.short: dict[int, _Table] = {}
        for size in range(1, N):
            if len(asked := np.flatnonzero(sizes == size)):
                self.short[size] = _Table(self.hashes[self.stems[asked]], asked)
        long = self.stems[(sizes >= _ANCHOR) & (sizes < N)]
        self.anchors = _Table(parts.stretches(parts.bounds[long], _ANCHOR), long)

    @property
    def unsearchable(self) -> list[Asked]:
        """The questions that cannot be found: hardly a unit in a short stem and in the options ("+", "-", …)."""
        return [question for number, question in enumerate(self.questions) if not self._searchable(number)]

    def _searchable(self, question: int) -> bool:
        stem, *options = self._parts(question)
        if stem[0] >= N or any(size >= N for size, _ in options):
            return True
        right = [options[place][0] for place in self.questions[question].right]
        return bool(stem[0]) and (
            sum(size > 0 for size, _ in options) > 1 or (all(right) and stem[0] + sum(right) >= FEWEST)
        )

    def _parts(self, question: int) -> list[tuple[int, np.uint64]]:
        """(units, hash) of the stem and of each option."""
        first = self.stems[question]
        part = slice(first, first + 1 + len(self.questions[question].options))
        return list(zip(self.sizes[part].tolist(), self.hashes[part], strict=True))

    def search(self, cut: Units) -> Hits:
        """Which texts touch which questions."""
        rolling = cut.rolling(N)
        stem = self._grams(cut, rolling, self.stem_grams)
        option = self._grams(cut, rolling, self.option_grams)
        found = [np.unique(stem, axis=0)[:, :2], option[:, :2], self._short(cut)]  # a 13-gram counts once in a text
        pairs, inverse = np.unique(np.concatenate(found), axis=0, return_inverse=True)
        grams = np.bincount(inverse[: len(found[0])], minlength=len(pairs))
        share = grams / np.maximum(self.totals[pairs[:, 1]], 1)
        share[inverse[len(found[0]) + len(option) :]] = 1.0
        return Hits(text=pairs[:, 0], question=pairs[:, 1], share=share)

    def _grams(self, cut: Units, rolling: np.ndarray, table: "_Table") -> np.ndarray:
        """(found, 3): the text, the question, and which 13-gram of the table they share."""
        starts = cut.within(table.places(rolling), N)
        at, asked, key = table.owners_of(rolling[starts])
        return np.column_stack([cut.text[starts[at]], asked, key])

    def _short(self, cut: Units) -> np.ndarray:
        """(found, 2): the text, and the question whose short stem stands there with its options."""
        anchored = self.anchors.places(cut.rolling(_ANCHOR))
        found = []
        for size, stems in self.short.items():
            starts = cut.within(anchored if size >= _ANCHOR else stems.places(cut.rolling(size)), size)
            at, asked, _ = stems.owners_of(cut.stretches(starts, size))
            for start, question in zip(starts[at].tolist(), asked.tolist(), strict=True):
                if self._options_follow(cut, question, start + size):
                    found.append((cut.text[start], question))
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def _options_follow(self, cut: Units, question: int, place: int) -> bool:
        """Whether all options, or directly the right ones, stand from unit `place` on."""
        (stem, _), *options = self._parts(question)
        right = [options[number] for number in self.questions[question].right]
        end = int(cut.bounds[cut.text[place - 1] + 1])

        def follow(wanted: list[tuple[int, np.uint64]], between: int) -> bool:
            reach = min(end, place + between + sum(size for size, _ in wanted))
            return all(
                reach - place >= size and (cut.stretches(np.arange(place, reach - size + 1), size) == code).any()
                for size, code in wanted
            )

        if (
            all(size for size, _ in right)
            and stem + sum(size for size, _ in right) >= FEWEST
            and follow(right, _BETWEEN)
        ):
            return True
        options = [option for option in options if option[0]]
        return len(options) > 1 and follow(options, _BETWEEN + _LETTERING * len(options))


class _Table:
    """Hashes and whose they are."""

    def __init__(self, hashes: np.ndarray, owners: np.ndarray, most: int | None = None) -> None:
        """most: hashes with more owners than that are left out."""
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        again = (hashes[1:] == hashes[:-1]) & (owners[1:] == owners[:-1])
        first = np.concatenate(([True], ~again))[: len(hashes)]
        hashes, owners = hashes[first], owners[first]
        if most is not None:
            _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
            kept = counts[inverse] <= most
            hashes, owners = hashes[kept], owners[kept]
        self.keys, firsts = np.unique(hashes, return_index=True)
        self.firsts, self.owners = np.append(firsts, len(hashes)), owners
        # By the upper bits of a hash, whether there may be such a key: nearly all of a corpus ends here.
        self.shift = np.uint64(64 - max(10, (16 * len(self.keys)).bit_length()))
        self.filter = np.zeros(1 << (64 - int(self.shift)), dtype=bool)
        self.filter[self.keys >> self.shift] = True

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """The places in `hashes` that hold a key."""
        places = np.flatnonzero(self.filter[hashes >> self.shift])
        return places[self._keys(hashes[places]) >= 0]

    def _keys(self, hashes: np.ndarray) -> np.ndarray:
        """Which key each hash is; -1 for none."""
        if not len(self.keys):
            return np.full(len(hashes), -1)
        key = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        return np.where(self.keys[key] == hashes, key, -1)

    def owners_of(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(places, owners, keys): every owner of every hash that is a key, and which key it is."""
        key = self._keys(hashes)
        places = np.flatnonzero(key >= 0)
        counts = np.diff(self.firsts)[key[places]]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        owners = self.owners[np.repeat(self.firsts[key[places]], counts) + within]
        return np.repeat(places, counts), owners, np.repeat(key[places], counts)
