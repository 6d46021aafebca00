"""From a source to packed rows on disk: memory-mapped Arrow, made once per content, configuration and tokenizer.

Records are streamed in batches, so that memory does not grow with the corpus. Every source is split by document: a hash
of the text decides between the parts `fisher`, `heldout` and `train`, so that the parts are disjoint and complete, a
document stays in its part whatever is added to the corpus, and copies of a text land together.
"""

import dataclasses
import hashlib
import json
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

import numpy as np

from clmed.config import NOT_READING, SourceConfig, fingerprint
from clmed.data import exams, formats, packing, sources, templates
from clmed.data.cache import build_once, cache_dir
from clmed.data.formats import Document, Pieces
from clmed.data.packing import Losses, Row, pack
from clmed.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Part = Literal["train", "fisher", "heldout"]

log = logging.getLogger(__name__)

_ARRAYS = ("input_ids", "position_ids", "labels")
_BATCH_CHARACTERS = 2**18  # tokenised at once
_BATCH_TOKENS = 2**18  # written at once
_PATIENCE = 2.0  # seconds of work before a progress bar appears


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

    def note(self, document: Document) -> None:
        """Count a document's length."""
        octave = max(0, len(document).bit_length() - 1)
        self.lengths += [0] * (octave + 1 - len(self.lengths))
        self.lengths[octave] += 1
        self.longest = max(self.longest, len(document))


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
    return ("".join(text for text, _ in pieces) for pieces in _pieces(source, local, part, Counts()))


def source_fingerprint(source: SourceConfig, local: Path | None) -> str:
    """16 hex digits for the content of a source and how it is read, this code included; not for where its file lies."""
    content = [local.suffix, _digest(local)] if local else [sources.load_hub(source)._fingerprint]
    settings = source.model_dump(mode="json", exclude=NOT_READING)
    code = [Path(module.__file__ or "").read_bytes() for module in (exams, formats, packing, sources, templates)]
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
) -> "Dataset":
    """The packed rows of one part of a source, from the cache or made now; the columns are the fields of `Row`.

    Texts are split over rows, questions with answers stay whole (see packing). Several processes may call this at the
    same time: one makes the rows and the others wait. What was left out is told by a warning and kept in `counts`.
    left_out: numbers of records that are passed over (see clmed.data.cleaning).
    Raises UserError, with the file and the line, for input that cannot be used, and when the part is empty.
    """
    from datasets import Dataset

    without = [sorted(left_out)] if left_out else []
    key = fingerprint([source_fingerprint(source, local), tokenizer_fingerprint(tokenizer), *without])
    folder = (cache or cache_dir()) / "rows" / f"{part}-{length}-{key}"

    def make(partial: Path) -> None:
        tally = Counts()
        documents = _documents(_pieces(source, local, part, tally, left_out), tokenizer, tally)
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        rows = pack(documents, length, pad_id, split=source.format == "text", losses=tally)
        _write(partial / "rows.arrow", _counted(_progress(rows, f"{name} ({part})"), tally), length)
        _refuse_empty(name, source, part, length, tally)
        (partial / "counts.json").write_text(json.dumps(dataclasses.asdict(tally)))

    build_once(folder, make)
    dataset = Dataset.from_file(str(folder / "rows.arrow")).with_format("numpy")
    if _is_first_process():
        _warn(name, counts(dataset), length)
    return dataset


def counts(dataset: "Dataset") -> Counts:
    """What went into the rows that `prepare` returned."""
    path = Path(dataset.cache_files[0]["filename"]).with_name("counts.json")
    return Counts(**json.loads(path.read_text()))


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):  # of the last call, not of the tokenizer
        del backend[state]
    return fingerprint([backend, tokenizer.eos_token_id, tokenizer.pad_token_id])


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


def _pieces(
    source: SourceConfig, local: Path | None, part: Part, tally: Counts, left_out: frozenset[int] = frozenset()
) -> Iterator[Pieces]:
    """The documents of one part; `tally.skipped` counts the records that hold none, `tally.dropped` those left out."""
    for number, record in sources.records(source, local):
        if number in left_out:
            tally.dropped += 1
            continue
        try:
            pieces = formats.texts(source, record)
            wanted = bool(pieces) and part_of("".join(text for text, _ in pieces), source) == part
        except ValueError as error:
            raise UserError(f"{sources.place(source, local, number)}: {error}.") from error
        tally.skipped += not pieces
        if wanted:
            yield pieces


def _documents(every: Iterable[Pieces], tokenizer: "PreTrainedTokenizerBase", tally: Counts) -> Iterator[Document]:
    """Tokenised a batch of characters at a time."""
    batch: list[Pieces] = []
    characters = 0
    for pieces in every:
        tally.documents += 1
        batch.append(pieces)
        characters += sum(len(text) for text, _ in pieces)
        if characters >= _BATCH_CHARACTERS:
            yield from _encoded(batch, tokenizer, tally)
            batch, characters = [], 0
    if batch:
        yield from _encoded(batch, tokenizer, tally)


def _encoded(batch: list[Pieces], tokenizer: "PreTrainedTokenizerBase", tally: Counts) -> Iterator[Document]:
    for document in formats.encode(batch, tokenizer):
        tally.note(document)
        yield document


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

    fields = [(name, pa.list_(pa.int32(), length)) for name in _ARRAYS]
    schema = pa.schema([*fields, *((name, pa.int32()) for name in ("tokens", "supervised", "bytes"))])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while batch := list(islice(rows, max(1, _BATCH_TOKENS // length))):
            columns = [
                pa.FixedSizeListArray.from_arrays(
                    pa.array(np.concatenate([getattr(row, name) for row in batch])), length
                )
                for name in _ARRAYS
            ]
            numbers = [
                pa.array([getattr(row, name) for row in batch], pa.int32()) for name in schema.names[len(_ARRAYS) :]
            ]
            writer.write_batch(pa.record_batch([*columns, *numbers], schema=schema))


def _progress(rows: Iterator[Row], title: str) -> Iterator[Row]:
    """The rows, with a line on the terminal (first process only) when making them takes long."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not (_is_first_process() and console.is_terminal):
        yield from rows
        return
    start, tokens = monotonic(), 0
    told = TextColumn("{task.description}: {task.fields[tokens]:,} tokens", markup=False)
    with Progress(SpinnerColumn(), told, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(f"packing {title}", total=None, visible=False, tokens=0)
        for row in rows:
            tokens += row.tokens
            progress.update(task, tokens=tokens, visible=monotonic() - start > _PATIENCE)
            yield row


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


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
