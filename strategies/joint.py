"""Joint: all data at once, the reference without an order."""

from collections.abc import Mapping, Sequence
from typing import Any

from clmed.config import ExperienceConfig
from clmed.data.corpus import Corpus
from clmed.data.mixture import Blend
from clmed.errors import UserError
from clmed.strategy import Strategy
from clmed.stream import Phase, domain_blend


class Joint(Strategy):
    """Train on all experiences' data at once, with general text: what an order costs is the gap to this.

    Every source keeps the budget of its experience; the general sources of `from` are passed over `general_epochs`
    times. The optimizer settings are the first experience's. All sources are mixed evenly from first to last step.

    Family: references
    Source: the usual upper reference (Chaudhry et al., 2018, arXiv 1801.10112, define intransigence against it)
    """

    joins = True
    gives = "a part of each step"

    def __init__(self, *, from_: list[str] = [], general_epochs: float = 1.0) -> None:  # noqa: B006 (read, never changed)
        if general_epochs < 0:
            raise UserError("joint needs `general_epochs` of at least 0.")
        self.from_, self.general_epochs = from_, general_epochs
        self.members: list[ExperienceConfig] = []

    def stream(self, experiences: Sequence[ExperienceConfig]) -> Sequence[ExperienceConfig]:
        """One experience named after all of them."""
        self.members = list(experiences)
        if len({member.budget for member in self.members}) > 1:
            raise UserError("joint makes one experience of all, so they must agree on one budget (domain or total).")
        data = list(dict.fromkeys(name for member in self.members for name in member.data))
        name = "+".join(member.name for member in self.members)
        return [self.members[0].model_copy(update={"name": name, "data": data, "measure_at": []})]

    def mixture(self, phase: Phase, blend: Blend, corpus: Corpus) -> Blend:
        """Each source with its own experience's budget, the general ones with theirs."""
        if blend.mixed or blend.alternated:
            raise UserError("joint rearranges all data, so it must come before the strategies that add some to it.")
        domain: dict[str, float] = {}
        for member in self.members:
            for name, tokens in domain_blend(member, corpus).domain.items():
                domain[name] = domain.get(name, 0.0) + tokens
        general = {name: self.general_epochs * float(corpus.rows(name).tokens.sum()) for name in self.from_}
        total = sum(domain.values()) + sum(general.values())
        joint = Blend(domain=domain, mixed={}, alternated={}, budget=blend.budget)
        return joint.add(mixed={name: tokens / total for name, tokens in general.items()})

    def cost(self, size: Any) -> Mapping[str, float]:
        """The passes over the general sources."""
        return {"tokens": self.general_epochs * sum(size.tokens[name] for name in self.from_)}
