"""What a model says at each position of a row, for another one to learn from: whole, or its largest logits on disk.

At temperature T the probabilities are p(v) = softmax(z / T)(v). Of stored logits z only the `top` largest are kept at
each position, and one number for all others together, the tail: T-softened, it is the log of the sum of exp(z / T)
over them. The KL divergence between these coarser distributions is exact where the vocabulary has at most `top`
tokens, and else a lower bound (merging events never raises a KL; the data-processing inequality).

Only positions that predict a token with a loss count. A store is written once (clmed/training/kept.py), one file a
rank: row i is the (i // files)-th of file i % files. A checkpoint holds a `Reference` to it, with the files' checksums.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import kl_div, pad

from clmed.data.cache import cache_dir
from clmed.data.corpus import Place
from clmed.data.packing import IGNORED
from clmed.errors import UserError
from clmed.results.manifest import Digests, damage

KIND = "logits"  # their folder in the cache


class Reference(TypedDict):
    """Which folder, how its files must look, and the rows in it, in order."""

    key: str
    files: Digests
    places: list[Place]


def predicting(labels: Tensor, rows: Sequence[bool] = ()) -> Tensor:
    """(rows, length) bool: the positions that predict a token with a loss; labels as in Hugging Face's data.

    rows: which rows are meant, by default all.
    """
    found = pad(labels[:, 1:] != IGNORED, (0, 1))
    return found & torch.tensor(rows, device=labels.device)[:, None] if rows else found


def row_means(values: Tensor, where: Tensor) -> Tensor:
    """(rows,) the mean of each row's values, 0 where it has none.

    values: (positions,) one for each True of `where`, (rows, length), in its order.
    """
    sums = values.new_zeros(len(where)).index_add(0, where.nonzero()[:, 0], values)
    return sums / where.sum(dim=1).clamp(min=1)


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(positions,) KL(teacher || model) in nats at a temperature, in fp32; both logits (positions, vocabulary)."""
    here, there = ((each.float() / temperature).log_softmax(-1) for each in (logits, teacher))
    return kl_div(here, there, reduction="none", log_target=True).sum(-1)


def coarse(logits: Tensor, top: int, temperature: float) -> tuple[Tensor, Tensor]:
    """What is kept of (positions, vocabulary) logits: (positions, top) token ids int32, and in fp32 (positions, top +
    1) their logits and, last, the tail (-inf where there are no others)."""
    values, ids = logits.float().topk(min(top, logits.shape[-1]))
    return ids.int(), torch.cat([values, _tail(logits.float() / temperature, ids)], dim=-1)


def coarse_divergence(logits: Tensor, ids: Tensor, values: Tensor, temperature: float) -> Tensor:
    """(positions,) KL(teacher || model) in nats of what `coarse` kept of the teacher at the same temperature."""
    softened = logits.float() / temperature
    here = softened.gather(-1, ids.long())
    there = torch.cat([values[:, :-1] / temperature, values[:, -1:]], dim=-1)
    if ids.shape[-1] == logits.shape[-1]:
        there = there[:, :-1]  # there is no tail
    else:
        here = torch.cat([here, _tail(softened, ids.long())], dim=-1)
    return kl_div(here.log_softmax(-1), there.log_softmax(-1), reduction="none", log_target=True).sum(-1)


def _tail(softened: Tensor, ids: Tensor) -> Tensor:
    """(positions, 1) log of the sum of exp over all tokens but `ids`."""
    return softened.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)


class StoredLogits:
    """The stores that references name, read as they are needed: `stored[source, row]` is what `coarse` gave of a row.

    Raises UserError for a store that is gone or damaged.
    """

    def __init__(self, references: Iterable[Reference] = ()) -> None:
        self.references: list[Reference] = []
        self._found: dict[Place, tuple[Any, int, int]] = {}  # file, and where the row's positions begin and end in it
        for reference in references:
            self.add(reference)

    def add(self, reference: Reference) -> None:
        """Open one more store."""
        folder = cache_dir() / KIND / reference["key"]
        if problem := damage(folder, reference["files"]):
            raise UserError(
                f"{folder} holds logits that this run has stored and still needs, but {problem}. They cannot be made "
                "again, as the model has changed since: put the folder back, or start anew with --overwrite."
            )
        files = [safe_open(folder / f"{rank}.safetensors", "pt") for rank in range(len(reference["files"]))]
        ends = [[0, *file.get_tensor("ends").tolist()] for file in files]
        for index, (source, row) in enumerate(reference["places"]):
            place, part = divmod(index, len(files))
            self._found[source, row] = files[part], ends[part][place], ends[part][place + 1]
        self.references.append(reference)

    def __contains__(self, place: Place) -> bool:
        return place in self._found

    def __len__(self) -> int:
        return len(self._found)

    def look_up(self, places: Iterable[Place], labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For the rows of a batch: which positions are kept, (rows, length), and in their order their (ids, values).

        places: of each row; one that is not stored has no positions. labels: (rows, length).
        """
        known = [self._found.get(place) for place in places]
        where = predicting(labels, [each is not None for each in known])
        slices = [(file, slice(start, end)) for file, start, end in filter(None, known)]
        ids, values = torch.zeros((0, 1), dtype=torch.int32), torch.zeros((0, 2))
        if slices:
            ids = torch.cat([file.get_slice("ids")[part] for file, part in slices])
            values = torch.cat([file.get_slice("values")[part] for file, part in slices])
        return where, ids.to(labels.device), values.to(labels.device)
