"""Self-synthesis: rehearse text that the base model itself has written."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from clmed.data.corpus import Corpus, Rows, reservoir
from clmed.data.mixture import Blend
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import Phase
from clmed.synthesis import Recipe, blank, packed, whole_documents, written

SOURCE = "self_synthesis"  # its name among the sources of a step
SHOTS_FROM = 200  # rows whose documents may be shown


class SelfSynthesis(Strategy):
    """Mix into every step a share of text that the model wrote before it learned anything new.

    The model with which the stream begins writes twice the tokens that fill `rows` rows, each next token drawn at
    `temperature` from the most probable ones of together `top_p`. It is shown two documents of the sources in
    `shots_from`; without these it begins with the token that begins a text or, where its tokenizer has none, with a
    random one, so that no general text is needed. Of what it wrote k-means makes `clusters`, and of each in turn the
    text nearest to its centre is kept. From then on it is replay: a step's rows are (1 - ratio) domain and ratio these.

    The texts are written once: the cache keeps them by the weights and all settings, and every checkpoint holds them.

    Family: data
    Source: Huang et al., 2024, "Self-Synthesized Rehearsal", arXiv 2403.01244 (with texts instead of instructions,
        whose answers the later model would improve); the random token: Liu et al., 2023, "LLM-QAT", arXiv 2305.17888
    """

    follows = ("joint",)
    makes = ("self_synthesis",)

    def __init__(
        self,
        *,
        ratio: float = 0.05,
        rows: int = 1000,
        shots_from: list[str] = [],  # noqa: B006 (read, never changed)
        top_p: float = 0.6,
        temperature: float = 0.9,
        clusters: int = 20,
    ) -> None:
        if not 0 <= ratio < 1 or rows < 1 or not 0 < top_p <= 1 or temperature <= 0 or clusters < 1:
            raise UserError(
                "self_synthesis needs a `ratio` from 0 to below 1, `rows` and `clusters` of at least 1, a `top_p` "
                "above 0 and at most 1, and a `temperature` above 0."
            )
        self.ratio, self.rows, self.shots_from = ratio, rows, shots_from
        self.top_p, self.temperature, self.clusters = top_p, temperature, clusters
        self.texts: list[str] = []

    def sources(self, phase: Phase, corpus: Corpus) -> Mapping[str, Rows]:
        """Rows in the place of those that are still to be written."""
        return {SOURCE: blank(corpus.tokenizer, corpus.length, self.rows)}

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """The blend with the synthesised share on top."""
        return blend.add(mixed={SOURCE: self.ratio})

    def remember(self, trainer: Any) -> Mapping[str, Rows]:
        """The rows, written by the model if that has not been done."""
        corpus: Corpus = trainer.corpus
        if not self.texts:
            seed = trainer.experience.phase.seed
            sources = {name: corpus.rows(name) for name in self.shots_from}
            recipe = Recipe(
                tokens=self.rows * corpus.length,
                shots=whole_documents(reservoir(sources, SHOTS_FROM, seed)) if sources else [],
                top_p=self.top_p,
                temperature=self.temperature,
                clusters=self.clusters,
                seed=seed,
            )
            found = written(trainer.model, corpus.tokenizer, recipe, most=corpus.length)
            self.texts = found.texts
            trainer.flops += trainer.forward_flops_per_token * found.positions
        return {SOURCE: packed(self.texts, corpus.tokenizer, corpus.length, self.rows)}

    def cost(self, size: Any) -> Mapping[str, float]:
        """The rehearsed tokens, on top of the domain's; writing twice what is kept, each time after its shots."""
        kept, shown = self.rows * size.row_tokens, 3 if self.shots_from else 1
        trained = size.domain_tokens * self.ratio / (1 - self.ratio)
        return {"tokens": trained, "read": 2 * shown * kept, "disk": 4 * kept}

    def state_dict(self) -> dict[str, Any]:
        """The texts: the model that wrote them is gone."""
        return {"texts": torch.from_numpy(np.frombuffer(json.dumps(self.texts).encode(), dtype=np.uint8).copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the texts."""
        self.texts = json.loads(state["texts"].numpy().tobytes())
