"""What a run is going to do, as it says itself before it begins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """One experience: optimizer steps, tokens of its own data, all tokens, and the share of tokens by source."""

    name: str
    steps: int
    domain_tokens: int
    all_tokens: int
    shares: dict[str, float]
    points: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run; seconds_per_token is measured on one micro-batch, build_tokens are those of a base still to be made."""

    model: str
    parameters: int
    phases: Sequence[PhasePlan]
    strategies: Sequence[str]
    benchmarks: Sequence[str]
    ranks: int
    seconds_per_token: float
    build_tokens: int = 0

    @property
    def training_seconds(self) -> float:
        """Expected, at the speed of one micro-batch; measurements come on top."""
        return sum(phase.all_tokens for phase in self.phases) * self.seconds_per_token / self.ranks

    @property
    def build_seconds(self) -> float:
        """Expected for the base model, which one process makes alone."""
        return self.build_tokens * self.seconds_per_token

    def record(self, tokens: int, point: int) -> list[dict[str, Any]]:
        """The experiences for the run's status: each with its steps, its domain tokens, how many were trained before it
        begins, how many points it measures, and the number of the first. tokens, point: where the run begins."""
        found = []
        for phase in self.phases:
            of_phase = {"steps": phase.steps, "tokens": phase.domain_tokens, "points": phase.points}
            found.append({"name": phase.name, **of_phase, "begin": tokens, "first_point": point + 1})
            tokens, point = tokens + phase.domain_tokens, point + phase.points
        return found

    def table(self) -> Table:
        """The plan for people."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        table.add_row("model", f"{self.model}, {self.parameters:,} parameters")
        if self.build_tokens:
            time = duration(self.build_seconds)
            table.add_row("", f"made first, once: {self.build_tokens:,} tokens of pretraining, about {time}")
        for index, phase in enumerate(self.phases):
            shares = ", ".join(f"{name} {share:.1%}" for name, share in phase.shares.items())
            table.add_row(
                "" if index else "experiences",
                f"{phase.name}: {phase.domain_tokens:,} domain tokens, {phase.all_tokens:,} in all, "
                f"{phase.steps} steps\n  {shares}",
            )
        table.add_row("strategy", ", ".join(self.strategies) or "naive")
        points = 1 + sum(phase.points for phase in self.phases)
        table.add_row("benchmarks", f"{', '.join(self.benchmarks) or 'none'} (measured {points} times)")
        if self.ranks > 1:
            table.add_row("processes", f"{self.ranks}, sharded")
        table.add_row("training time", f"about {duration(self.training_seconds)}, and the measurements")
        return table


def duration(seconds: float) -> str:
    """75 -> '1 min 15 s'; 9000 -> '2.5 h'."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {round(seconds % 60 // 5 * 5)} s"
    return f"{seconds / 3600:.1f} h"
