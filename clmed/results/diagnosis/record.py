"""What a run recorded, as the signatures ask for it: changes of benchmarks and losses of sources, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clmed.config import ExperimentConfig, load
from clmed.errors import UserError
from clmed.results.metrics import NATS, WHOLE, is_accuracy, primary_metric
from clmed.results.rundir import CONFIG, Row
from clmed.results.runs import Run
from clmed.results.statistics import Estimate
from clmed.results.statistics.bootstrap import generator, interval, question_draws, ratio_draws
from clmed.results.statistics.paired import mean

Floats = NDArray[np.float64]
WINDOW = 0.1  # the share of an experience's steps whose mean loss is "the last loss"
COLUMNS = ("subject", "categories", "correct", "score", "nats", "tokens")


@dataclass(frozen=True, kw_only=True)
class Change:
    """Of a benchmark, or a category of it, since the base: in points of accuracy, or in nats a token of text."""

    benchmark: str
    category: str
    role: str
    before: float
    now: float
    by: Estimate
    questions: int
    text: bool

    def __str__(self) -> str:
        what = self.benchmark if self.category == WHOLE else f"{self.benchmark}, {self.category}"
        if self.text:
            return f"{what}: {self.before:.3f} -> {self.now:.3f} nats a token ({_signed(self.by, 3)})"
        points = f"{_signed(self.by, 1)} points, {self.questions:,} questions"
        return f"{what}: {self.before:.1f} -> {self.now:.1f} % ({points})"


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """A source before training: loss in nats a token, that of its words in random order, bytes a token, main script.

    general: no experience trains on it.
    """

    source: str
    general: bool
    loss: Estimate
    context_free: float
    bytes_per_token: float
    script: str

    def __str__(self) -> str:
        return (
            f"{self.source}: {span(self.loss, 2)} nats a token before training (its words in random order: "
            f"{self.context_free:.2f}), {self.bytes_per_token:.1f} bytes a token"
            + (f", {script_name(self.script)}" if self.script else "")
        )


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run as the signatures see it, at its last whole measurement point."""

    run: Run
    _kept: dict[tuple[int, str], Mapping[str, Sequence[Any]]] = field(default_factory=dict, repr=False)

    def refuse_if_damaged(self) -> None:
        """Raise UserError where what everything rests on cannot be read."""
        _ = self.run.state, self.run.rows, self.run.training, self.run.sources
        if self.run.problems:
            raise UserError(f"{'; '.join(self.run.problems)}.")

    @cached_property
    def config(self) -> ExperimentConfig:
        file = self.run.path / CONFIG
        if not self.run.config:
            raise UserError(f"{file} is not there: the run has not begun, or was killed before it had.")
        try:
            return ExperimentConfig.model_validate(self.run.config)
        except ValueError:
            return load(file)  # which says what is wrong, and in which line

    @property
    def rows(self) -> list[Row]:
        return self.run.rows

    @property
    def training(self) -> list[Row]:
        return self.run.training

    @property
    def point(self) -> int:
        return self.run.last

    @property
    def ended(self) -> bool:
        """Whether the last point is the end of an experience, and not the base."""
        return any(row["point"] == self.point > 0 and row["final"] for row in self.rows)

    @cached_property
    def domain(self) -> list[str]:
        """The sources of the experiences."""
        return list(dict.fromkeys(name for experience in self.config.stream for name in experience.data))

    @cached_property
    def general(self) -> list[str]:
        """The sources that may be rehearsed: those that were looked at; where none was, all others that there are."""
        looked_at = [source.source for source in self.familiarity if source.general]
        return looked_at or self.unread

    @cached_property
    def unread(self) -> list[str]:
        """The sources that no experience trains on, though they may be trained on."""
        return [name for name, source in self.config.data.items() if name not in self.domain and not source.base_only]

    def changes(self, role: str) -> list[Change]:
        """Of each benchmark of a role whose answers were kept, as a whole."""
        names = dict.fromkeys(row["benchmark"] for row in self.rows if row["role"] == role)
        found = [self._change(name, role, WHOLE) for name in names]
        return [change for change in found if change is not None]

    def categories(self, change: Change) -> list[Change]:
        """Of the same benchmark, by category, where it has several."""
        columns = self._answers(self.point, change.benchmark)
        names = dict.fromkeys(name for row in columns.get("categories", []) for name in row)
        found = [self._change(change.benchmark, change.role, name) for name in names] if len(names) > 1 else []
        return [each for each in found if each is not None]

    @cached_property
    def familiarity(self) -> list[Familiarity]:
        """Of every source that was looked at before training."""
        found = []
        for name, known in self.run.sources.items():
            nats, sizes = (np.array(known[key], dtype=float) for key in ("nats", "supervised"))
            drawn = ratio_draws(nats[:, None], sizes, rng=generator(0, name))[:, 0]
            found.append(
                Familiarity(
                    source=name,
                    general=name not in self.domain,
                    loss=interval(float(nats.sum() / sizes.sum()), drawn),
                    context_free=known["context_free"],
                    bytes_per_token=known["bytes"] / known["tokens"],
                    script=next(iter(known["scripts"]), ""),
                )
            )
        return found

    def scripts(self, *, general: bool) -> set[str]:
        """The main scripts of the general sources that were looked at, or of the domain's."""
        return {source.script for source in self.familiarity if source.general == general}

    @cached_property
    def last_losses(self) -> dict[str, Estimate]:
        """Of each source of the stream, the mean training loss of the last steps of the experience it came last in."""
        found = {}
        for experience in self.config.stream:
            steps = [row for row in self.training if row["experience"] == experience.name]
            last = steps[-max(2, math.ceil(WINDOW * len(steps))) :]
            for name in experience.data:
                losses = np.array([row[f"loss/{name}"] for row in last if f"loss/{name}" in row])
                if len(losses) > 1:
                    drawn = question_draws(losses[:, None], rng=generator(0, name), answers=0)[:, 0]
                    found[name] = interval(float(losses.mean()), drawn)
        return found

    def _change(self, benchmark: str, role: str, category: str) -> Change | None:
        metric = primary_metric(self.rows, benchmark)
        text = metric == NATS
        base, now = (self._answers(point, benchmark) for point in (0, self.point))
        if not (text or is_accuracy(metric)) or not base or not now:
            return None
        scores = self.run.matrix.get((benchmark, category, metric), {})
        if not {0, self.point} <= scores.keys():
            return None
        scale = 1.0 if text else 100.0
        by = _by(base, now, category, scores[self.point] - scores[0])
        return Change(
            benchmark=benchmark,
            category=category,
            role=role,
            before=scale * scores[0],
            now=scale * scores[self.point],
            by=Estimate(scale * by.value, scale * by.low, scale * by.high),
            questions=sum(_members(now, category)),
            text=text,
        )

    def _answers(self, point: int, benchmark: str) -> Mapping[str, Sequence[Any]]:
        if (point, benchmark) not in self._kept:
            self._kept[point, benchmark] = self.run.columns(benchmark, point, COLUMNS) or {}
        return self._kept[point, benchmark]


def _by(base: Mapping[str, Sequence[Any]], now: Mapping[str, Sequence[Any]], category: str, seen: float) -> Estimate:
    """The change with its interval over the questions (rows of text) of a category, the same at both points."""
    rng = generator(0, category)
    if "nats" in now:
        sizes = np.array(now["tokens"], dtype=float)
        difference = np.array(now["nats"]) - np.array(base["nats"])
        return interval(float(difference.sum() / sizes.sum()), ratio_draws(difference[:, None], sizes, rng=rng)[:, 0])
    key = "score" if "score" in now else "correct"
    chosen = np.array(_members(now, category))
    difference = (np.array(now[key], dtype=float) - np.array(base[key], dtype=float))[chosen]
    strata = np.array(now.get("subject", [""] * len(chosen)))[chosen]
    macro = None if math.isclose(mean(difference), seen, abs_tol=1e-9) else strata
    return interval(mean(difference, macro), question_draws(difference[:, None], macro, rng=rng)[:, 0])


def _members(answers: Mapping[str, Sequence[Any]], category: str) -> list[bool]:
    """Which questions belong to a category."""
    rows = len(answers.get("correct", answers.get("nats", ())))
    return [category in names for names in answers["categories"]] if category != WHOLE else [True] * rows


def script_name(script: str) -> str:
    """LATIN -> Latin; an abbreviation stays."""
    return script if script == "CJK" else script.capitalize()


def _signed(estimate: Estimate, digits: int) -> str:
    """+0.9, -5.1 to +6.8"""
    if not estimate.known:
        return f"{estimate.value:+.{digits}f}".replace("-", "−")
    value, low, high = (f"{x:+.{digits}f}".replace("-", "−") for x in (estimate.value, estimate.low, estimate.high))
    return f"{value}, {low} to {high}"


def span(estimate: Estimate, digits: int) -> str:
    """4.12 (4.05 to 4.20)"""
    if not estimate.known:
        return f"{estimate.value:.{digits}f} (one row: no interval)"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
