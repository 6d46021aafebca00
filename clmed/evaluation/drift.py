"""KL to the base model on a fixed sample of held-out text: it predicts forgetting, and costs some forward passes.

    KL(base || model) = mean over positions of  sum over tokens v of  p_base(v) (log p_base(v) - log p_model(v))

in nats. Of the base only its `top` log-probabilities are kept at each position, and the sum of the others as one event
more ("the tail"): the KL between these coarser distributions, exact where the vocabulary has at most `top` tokens and
else a lower bound (merging events never raises a KL; the data-processing inequality).

Source: Shenfeld et al., 2025, "RL's Razor", arXiv 2509.04259; there the text is the new task's. `data` may name either.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from avalanche.core import BaseSGDPlugin
from torch import Tensor
from transformers import PreTrainedModel

from clmed.config import WatchingConfig
from clmed.data.corpus import Corpus, reservoir
from clmed.data.packing import IGNORED
from clmed.live import deal, measuring, sum_over_ranks, world
from clmed.shards import computing_device

Row = Mapping[str, Any]
Reference = tuple[
    Tensor, Tensor
]  # (positions, top) token ids int32; (positions, top + 1) log-probabilities, the tail's last


class KLToBase(BaseSGDPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Writes `kl_to_base` to the trainer's log every `every` steps and with the last step of each experience.

    Every rank must have it, with the same rows: forwards of a sharded model are collective. The base is what the model
    is before training; a run that goes on computes the same reference again, as the base is loaded before a checkpoint.
    """

    def __init__(self, rows: Sequence[Row], *, every: int, top: int) -> None:
        super().__init__()
        self.rows, self.every, self.top = rows, every, top
        self.references: dict[int, Reference] = {}  # of the rows dealt to this rank

    @staticmethod
    def of(watching: WatchingConfig, corpus: Corpus) -> list["KLToBase"]:
        """As configured: the same rows for every run on these data; none where it is off."""
        if watching.kl is None:
            return []
        kl = watching.kl
        sample = reservoir({name: corpus.rows(name, "heldout") for name in kl.data}, kl.rows, seed=0)
        return [KLToBase([sample.data[index] for index in range(len(sample))], every=kl.every, top=kl.top)]

    def before_training(self, trainer: Any, **kwargs: Any) -> None:
        """Keep what the base says."""
        self._pass(trainer, self._keep)

    def after_training_iteration(self, trainer: Any, **kwargs: Any) -> None:
        """Measure, where it is time (Avalanche's clock counts this step only after this)."""
        last = trainer.clock.train_exp_iterations + 1 == len(trainer.experience.batches)
        if last or (trainer.clock.train_iterations + 1) % self.every == 0:
            totals = self._pass(trainer, self._divergence)
            trainer.log["kl_to_base"] = float(totals[0] / totals[1])

    def _pass(self, trainer: Any, look: Any) -> np.ndarray:
        """The sum over rows and ranks of `look(index, log-probabilities (positions, vocabulary))`."""
        rank, ranks = world()
        total, rounds = np.zeros(2), deal([[index] for index in range(len(self.rows))], ranks)
        with measuring(trainer.model):
            for dealt in rounds:
                (index,) = dealt[rank]
                found = look(index, _log_probabilities(trainer.model, self.rows[index]))
                if rank == 0 or dealt[rank] is not dealt[0]:  # not a repeat
                    total += found
        length = len(self.rows[0]["input_ids"])
        trainer.flops += trainer.forward_flops_per_token * length * len(rounds) * ranks
        return sum_over_ranks(total, computing_device(trainer.model))

    def _keep(self, index: int, logs: Tensor) -> np.ndarray:
        values, ids = logs.topk(min(self.top, logs.shape[1]))
        self.references[index] = ids.int().cpu(), torch.cat([values, _tail(logs, ids)], dim=1).cpu()
        return np.zeros(2)

    def _divergence(self, index: int, logs: Tensor) -> np.ndarray:
        ids, base = (tensor.to(logs.device) for tensor in self.references[index])
        here = torch.cat([logs.gather(1, ids.long()), _tail(logs, ids.long())], dim=1)
        terms = base.exp() * (base - here)
        terms = terms.nan_to_num(nan=0.0)  # an empty tail: 0 x (-inf - -inf)
        return np.array([terms.sum(dtype=torch.float64).item(), len(logs)])


def _log_probabilities(model: PreTrainedModel, row: Row) -> Tensor:
    """(positions, vocabulary) fp32, at the positions of a packed row that predict a token of their document."""
    ids, places, labels = (
        torch.from_numpy(np.asarray(row[key], dtype=np.int64)).to(computing_device(model))
        for key in ("input_ids", "position_ids", "labels")
    )
    logits = model(input_ids=ids[None], position_ids=places[None], use_cache=False).logits[0, :-1]
    return logits[labels[1:] != IGNORED].float().log_softmax(-1)


def _tail(logs: Tensor, ids: Tensor) -> Tensor:
    """(positions, 1) log of the probability of all tokens but `ids`; -inf where there are none."""
    return logs.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True)
