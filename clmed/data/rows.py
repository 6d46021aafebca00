"""From a source to packed rows on disk: memory-mapped Arrow, made once per content, configuration and tokenizer.

Records are streamed in batches, so that memory does not grow with the corpus. Every source is split by document: a hash
of the text decides between the parts `fisher`, `heldout` and `train`, so that the parts are disjoint and complete, a
document stays in its part whatever is added to the corpus, and copies of a text land together.
"""

import dataclasses
import hashlib
import json
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from clmed.config import NOT_READING, SourceConfig, fingerprint
from clmed.data import chat, exams, explanations, formats, packing, sources, templates, tokenising
from clmed.data.cache import build_once, cache_dir
from clmed.data.chat import ChatTemplate
from clmed.data.formats import Pieces
from clmed.data.packing import Losses, Row, pack
from clmed.data.progress import following, is_first_process
from clmed.data.sources import Reading, Record
from clmed.data.tokenising import Document, Encoder
from clmed.data.workers import in_order
from clmed.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Part = Literal["train", "fisher", "heldout"]

log = logging.getLogger(__name__)

_BATCH_CHARACTERS = 2**18  # tokenised at once
_BATCH_TOKENS = 2**18  # written at once


class EmptyPartError(UserError):
    """No document of a source falls in the part that is asked for."""


@dataclass(kw_only=True)
class Counts(Losses):
    """What went into the rows of one part. documents: of this part, before packing; skipped: records of the whole
    source without a text, a question or an answer; dropped: its records that were left out; bytes: UTF-8 bytes of the
    text that the rows hold; longest: tokens of the longest document; lengths: documents of 1 token, of 2 to 3, of 4 to
    7, and so on in powers of two."""

    documents: int = 0
    skipped: int = 0
    dropped: int = 0
    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    bytes: int = 0
    longest: int = 0
    lengths: list[int] = field(default_factory=list)

    def note(self, lengths: np.ndarray) -> None:
        """Count documents of these lengths, (documents,) integers of at least 1."""
        octaves = np.bincount(np.frexp(lengths)[1] - 1, minlength=len(self.lengths))
        self.lengths = (octaves + np.pad(self.lengths, (0, len(octaves) - len(self.lengths)))).tolist()
        self.longest = max(self.longest, int(lengths.max()))


def part_of(text: str, source: SourceConfig) -> Part:
    """The part of a document: its SHA-256 as a number in [0, 1) against the shares of the source.

    The text is NFC-normalised first, so that two spellings of the same characters count as copies.
    """
    digest = hashlib.sha256(unicodedata.normalize("NFC", text).encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < source.fisher:
        return "fisher"
    return "heldout" if position < source.fisher + source.heldout else "train"


def document_texts(name: str, source: SourceConfig, local: Path | None, part: Part) -> Iterator[str]:
    """The texts of one part's documents, streamed: what a tokenizer is trained on."""
    return ("".join(text for text, _ in pieces) for pieces in _pieces(source, local, part, Counts(), Reading()))


def source_fingerprint(source: SourceConfig, local: Path | None) -> str:
    """16 hex digits for the content of a source and how it is read, this code included; not for where its file lies."""
    content = [local.suffix, _digest(local)] if local else [sources.load_hub(source)._fingerprint]
    settings = source.model_dump(mode="json", exclude=NOT_READING)
    modules = (chat, exams, explanations, formats, packing, sources, templates, tokenising)
    code = [Path(module.__file__ or "").read_bytes() for module in modules]
    code.append(Path(__file__).read_bytes())
    return fingerprint([content, settings, hashlib.sha256(b"".join(code)).hexdigest()])


def prepare(
    name: str,
    source: SourceConfig,
    local: Path | None,
    part: Part,
    tokenizer: "PreTrainedTokenizerBase",
    length: int,
    cache: Path | None = None,
    left_out: frozenset[int] = frozenset(),
    workers: int | None = None,
) -> "Dataset":
    """The packed rows of one part of a source, from the cache or made now; the columns are the fields of `Row`.

    Texts are split over rows, questions with answers stay whole (see packing). Several processes may call this at the
    same time: one makes the rows and the others wait. What was left out is told by a warning and kept in `counts`.
    left_out: numbers of records that are passed over (see clmed.data.cleaning).
    workers: processes that tokenise a large source, by default one a core; the rows do not depend on their number.
    Raises UserError, with the file and the line, for input that cannot be used, and when the part is empty.
    """
    from datasets import Dataset

    template = ChatTemplate(name, tokenizer, source.template) if source.format == "chat" else None
    parts = [source_fingerprint(source, local), tokenizer_fingerprint(tokenizer)]
    key = fingerprint([*parts, *([template.template] if template else []), *([sorted(left_out)] if left_out else [])])
    folder = (cache or cache_dir()) / "rows" / f"{part}-{length}-{key}"

    def make(partial: Path) -> None:
        tally, reading = Counts(), Reading()
        encoder = Encoder(tokenizer, closed=template is None)
        pieces = _pieces(source, local, part, tally, reading, left_out=left_out, template=template)
        documents = _documents(pieces, encoder, tally, workers)
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        rows = pack(documents, length, pad_id, split=source.format == "text", losses=tally)
        _write(partial / "rows.arrow", _counted(following(rows, f"{name} ({part})", reading), tally), length)
        _refuse_empty(name, source, part, length, tally)
        (partial / "counts.json").write_text(json.dumps(dataclasses.asdict(tally)))

    build_once(folder, make)
    dataset = Dataset.from_file(str(folder / "rows.arrow")).with_format("numpy")
    if is_first_process():
        _warn(name, counts(dataset), length)
    return dataset


def counts(dataset: "Dataset") -> Counts:
    """What went into the rows that `prepare` returned."""
    path = Path(dataset.cache_files[0]["filename"]).with_name("counts.json")
    return Counts(**json.loads(path.read_text()))


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    return fingerprint(
        [_state_fingerprint(tokenizer.backend_tokenizer.to_str()), tokenizer.eos_token_id, tokenizer.pad_token_id]
    )


@lru_cache(maxsize=2)  # a large vocabulary takes half a second, and every part of every source asks
def _state_fingerprint(state: str) -> str:
    backend = json.loads(state)
    for of_the_last_call in ("truncation", "padding"):
        del backend[of_the_last_call]
    return fingerprint(backend)


def _digest(path: Path) -> str:
    try:
        found = path.stat()
        return _read_digest(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


@lru_cache
def _read_digest(path: Path, size: int, changed: int) -> str:
    """Read once for all parts of a source; the size and the time of the last change tell another content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(
    source: SourceConfig,
    local: Path | None,
    part: Part,
    tally: Counts,
    reading: Reading,
    *,
    left_out: frozenset[int] = frozenset(),
    template: ChatTemplate | None = None,
) -> Iterator[Pieces]:
    """The documents of one part; `tally.skipped` counts the records that hold none, `tally.dropped` those left out.

    Conversations are in the template, where there is one, and explanations as the source wants them; their part depends
    on neither.
    """
    chosen = _chosen(source, local, part, tally, reading, left_out, template)
    if not explanations.changes(source):
        return (pieces for _, pieces in chosen)
    return (formats.texts(source, each) for each in explanations.changed(source, (record for record, _ in chosen)))


def _chosen(
    source: SourceConfig,
    local: Path | None,
    part: Part,
    tally: Counts,
    reading: Reading,
    left_out: frozenset[int],
    template: ChatTemplate | None,
) -> Iterator[tuple[Record, Pieces]]:
    for number, record in sources.records(source, local, reading):
        if number in left_out:
            tally.dropped += 1
            continue
        try:
            pieces = formats.texts(source, record)
            wanted = bool(pieces) and part_of("".join(text for text, _ in pieces), source) == part
            if wanted and template is not None:
                pieces = template.pieces(formats.messages(source, record))
        except ValueError as error:
            raise UserError(f"{sources.place(source, local, number)}: {error}.") from error
        tally.skipped += not pieces
        if wanted:
            yield record, pieces


def _documents(every: Iterable[Pieces], encoder: Encoder, tally: Counts, workers: int | None) -> Iterator[Document]:
    for documents in in_order(encoder, _batches(every, tally), workers):
        tally.note(np.diff(documents.ends, prepend=0))
        yield from documents


def _batches(every: Iterable[Pieces], tally: Counts) -> Iterator[list[Pieces]]:
    batch: list[Pieces] = []
    characters = 0
    for pieces in every:
        tally.documents += 1
        batch.append(pieces)
        characters += sum(len(text) for text, _ in pieces)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _refuse_empty(name: str, source: SourceConfig, part: Part, length: int, tally: Counts) -> None:
    if not tally.documents:
        share = "" if part == "train" else f", whose share is {getattr(source, part)}"
        skipped = f" ({tally.skipped:,} records have no text)" if tally.skipped else ""
        skipped += f" ({tally.dropped:,} are left out: deduplicate, decontaminate)" if tally.dropped else ""
        raise EmptyPartError(
            f"data.{name}: no document of {source.path} falls in the part {part!r}{share}{skipped}. "
            "More documents or other shares (fisher, heldout) are needed."
        )
    if not tally.supervised:
        raise UserError(
            f"data.{name}: there is nothing to learn in rows of {length} tokens: the {tally.documents:,} documents of "
            f"the part {part!r} are so long that their answers are cut off. Raise training.sequence_length."
        )


def _counted(rows: Iterable[Row], tally: Counts) -> Iterator[Row]:
    for row in rows:
        tally.rows += 1
        tally.tokens += row.tokens
        tally.supervised += row.supervised
        tally.bytes += row.bytes
        yield row


def _write(path: Path, rows: Iterator[Row], length: int) -> None:
    """An Arrow stream with lists of fixed size: random access costs a multiplication, not a search."""
    import pyarrow as pa

    arrays = {"input_ids": pa.int32(), "position_ids": pa.int32(), "labels": pa.int32(), "weights": pa.float32()}
    numbers = {"tokens": pa.int32(), "supervised": pa.int32(), "mass": pa.float64(), "bytes": pa.int32()}
    schema = pa.schema([*((name, pa.list_(kind, length)) for name, kind in arrays.items()), *numbers.items()])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while batch := list(islice(rows, max(1, _BATCH_TOKENS // length))):
            columns = [
                pa.FixedSizeListArray.from_arrays(
                    pa.array(np.concatenate([getattr(row, name) for row in batch])), length
                )
                for name in arrays
            ]
            columns += [pa.array([getattr(row, name) for row in batch], kind) for name, kind in numbers.items()]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _warn(name: str, tally: Counts, length: int) -> None:
    told = [
        f"{number:,} {what}"
        for number, what in (
            (tally.skipped, "records without text were left out"),
            (tally.cut, f"of {tally.documents:,} documents were cut at {length:,} tokens"),
            (tally.untaught, f"of {tally.documents:,} documents were left out: their answer does not fit in the row"),
        )
        if number
    ]
    if told:
        log.warning("data.%s: %s", name, "; ".join(told))
