"""A live, possibly sharded model as lm-evaluation-harness asks one: clmed's scoring and generation as it calls them.

Where long texts are cut and where windows begin is as in the harness's own hf backend, so that the numbers are the
same, but for an answer whose first characters share a token with the end of its context: the hf backend leaves these
characters out, while here the text is scored as it is. On many ranks each is asked everything and gets every answer:
the ranks share the forward passes among them (`clmed.evaluation.live`), and the harness thinks that it is alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clmed.errors import UserError
from clmed.evaluation.encoding import Encoded, Request, encode
from clmed.evaluation.generation import go_on, prompt_tokens
from clmed.evaluation.measurement import Follow
from clmed.evaluation.scoring import longest, score_tokens

MOST_TOKENS = 256
"""Generated where a task does not say how many: the harness's own default."""
WINDOWS = 64
"""Windows of long texts are scored so many at a time: each has a mask of its positions squared."""
GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
"""What a task may say of generation; the last three mean nothing to the most probable token."""


class LiveModel(LM):
    """`cut` counts the texts that were longer than the model's positions and lost their beginning."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_tokens: int,
        label: str,
        follow: Follow,
    ) -> None:
        """batch_tokens: as of `scoring.score`; label: what `follow` shows as being measured."""
        super().__init__()
        self.model, self.tokenizer, self.batch_tokens = model, tokenizer, batch_tokens
        self.what, self.follow = f"measuring {label}", follow
        self.limit, self.cut = longest(model), 0

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """For each (context, continuation) the log-probability and whether the most probable tokens would say it."""
        by_context: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for index, request in enumerate(requests):
            context, continuation = request.args
            before = context.rstrip()  # white space at the border belongs to the continuation
            key = str(request.task_name), before
            by_context.setdefault(key, []).append((index, context[len(before) :] + continuation))
        asked = {key: answers for key, answers in by_context.items() if key[1]}
        whole = encode(
            self.tokenizer,
            [
                Request(group=task, context=context, continuations=tuple(text for _, text in answers))
                for (task, context), answers in asked.items()
            ],
        )
        places: list[tuple[str, list[int], Encoded]] = []
        for ((task, _), answers), tokens in zip(asked.items(), whole, strict=True):
            indices = [index for index, _ in answers]
            places += [(task, [indices[i] for i in these], part) for these, part in self._fitting(tokens)]
        for (task, context), answers in by_context.items():
            if not context:
                places += [(task, [index], self._after_nothing(text)) for index, text in answers]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        groups = [task for task, _, _ in places]
        for (_, indices, _), (sums, misses) in zip(
            places, self._scored(groups, [part for _, _, part in places]), strict=True
        ):
            for index, total, missed in zip(indices, sums, misses, strict=True):
                found[index] = float(total), not missed
        return found

    def _fitting(self, tokens: Encoded) -> Iterator[tuple[list[int], Encoded]]:
        """The continuations after their context, all together if the model has positions for the longest."""
        if tokens.longest <= self.limit + 1:  # the last token is only ever predicted
            yield list(range(len(tokens.continuations))), tokens
            return
        for index, end in enumerate(tokens.continuations):
            whole = np.concatenate([tokens.context, np.array(end, dtype=np.int64)])
            yield [index], self._cut(whole, len(tokens.context))

    def _after_nothing(self, text: str) -> Encoded:
        """A continuation without context follows the token that begins a text."""
        end = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = end if end[0] == self._first and len(end) > 1 else [self._first, *end]
        return self._cut(np.array(whole, dtype=np.int64), 1)

    @property
    def _first(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if begin is None else begin

    def _cut(self, whole: np.ndarray, border: int) -> Encoded:
        """From the left, to the model's positions."""
        over = max(len(whole) - self.limit - 1, 0)
        self.cut += over > 0
        whole, border = whole[over:], max(border - over, 1)
        return Encoded(context=whole[:border], continuations=(tuple(whole[border:].tolist()),))

    def _scored(self, groups: Sequence[str], encoded: Sequence[Encoded]) -> list[np.ndarray]:
        with self.follow(self.what, len(encoded)) as progress:
            return score_tokens(
                self.model, groups, encoded, batch_tokens=self.batch_tokens, misses=True, progress=progress
            )

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-probability of each whole text, in windows that do not overlap but for one token of context."""
        windows: list[tuple[int, Encoded]] = []
        for index, tokens in enumerate(prompt_tokens(self.tokenizer, [request.args[0] for request in requests])):
            for pair in get_rolling_token_windows(
                token_list=tokens, prefix_token=self._first, max_seq_len=self.limit, context_len=1
            ):
                context, predicted = make_disjoint_window(pair)
                part = Encoded(context=np.array(context), continuations=(tuple(predicted),))
                windows.append((index, part))
        totals = [0.0] * len(requests)
        with self.follow(self.what, len(windows)) as progress:
            for start in range(0, len(windows), WINDOWS):
                some = windows[start : start + WINDOWS]
                groups, parts = [str(index) for index, _ in some], [part for _, part in some]
                values = score_tokens(self.model, groups, parts, batch_tokens=self.batch_tokens, progress=progress)
                for (index, _), value in zip(some, values, strict=True):
                    totals[index] += float(value[0, 0])
        return totals

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the most probable tokens say after each context, up to a stop text of the task."""
        by_way: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, request in enumerate(requests):
            most, stops = greedy(str(request.task_name), request.args[1], self.limit)
            by_way.setdefault((most, stops), []).append(index)
        texts = [""] * len(requests)
        end = str(self.tokenizer.decode(self.tokenizer.eos_token_id))
        with self.follow(self.what, len(requests)) as progress:
            for (most, stops), indices in by_way.items():
                tokens = prompt_tokens(self.tokenizer, [requests[index].args[0] for index in indices])
                keep = self.limit - most
                self.cut += sum(len(prompt) > keep for prompt in tokens)
                said = go_on(
                    self.model,
                    self.tokenizer,
                    [prompt[-keep:] for prompt in tokens],
                    most=most,
                    stops=[stop for stop in handle_stop_sequences(list(stops), eos=end) if stop],
                    batch_tokens=self.batch_tokens,
                    progress=progress,
                )
                for index, text in zip(indices, said, strict=True):
                    texts[index] = text
        return texts


def greedy(task: str, settings: Mapping[str, Any], positions: int) -> tuple[int, tuple[str, ...]]:
    """The most tokens to generate, and what ends a text, in a task's settings.

    Raises UserError for another way than the most probable token, and where no position is left for a prompt.
    """
    known = normalize_gen_kwargs(dict(settings), MOST_TOKENS)
    if known["do_sample"] or (others := sorted(set(known) - GREEDY)):
        why = "random answers (do_sample)" if known["do_sample"] else ", ".join(others)
        raise UserError(f"lm_eval/{task} asks for {why}; clmed generates the most probable token and nothing else.")
    if known["max_gen_toks"] >= positions:
        raise UserError(
            f"lm_eval/{task} generates up to {known['max_gen_toks']} tokens, but the model takes {positions} with the "
            "prompt: take a model with more positions."
        )
    return known["max_gen_toks"], tuple(known["until"])
