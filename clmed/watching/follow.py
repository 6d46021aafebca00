"""What is known of a run that somebody watches: its place, speed, time left, last measurement and state."""

import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from clmed.errors import UserError
from clmed.evaluation.floors import Floors
from clmed.results.metrics import last_point
from clmed.results.rundir import RESULTS, STATUS, TRAIN, Row, RunDirectory
from clmed.results.runs import Run
from clmed.results.sound import wrong_score, wrong_step
from clmed.watching.tail import Tail

RECENT = 50  # steps over which speed and losses are averaged
END = 1 << 18  # bytes read of a train.jsonl at the first look: far more than RECENT steps
OF_A_STEP = ("step", "all_tokens", "lr")  # what is shown of a step, besides what every row must have
OF_A_PHASE = ("steps", "tokens", "begin", "points", "first_point")
State = Literal["running", "elsewhere", "killed", "stopped", "complete"]


@dataclass(kw_only=True)
class Seen:
    """A look at a run. steps: the last RECENT rows of train.jsonl; results: all measured so far; silent: seconds since
    a file of the run changed; floors: what crossed floors there are at the last point; damage: what cannot be read."""

    state: State
    reason: str
    host: str
    plan: Sequence[Mapping[str, Any]]
    steps: Sequence[Row]
    results: Sequence[Row]
    silent: float
    floors: Sequence[str]
    damage: Sequence[str]

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("killed", "stopped", "complete")

    @property
    def step(self) -> Row:
        """The last training step; empty before the first."""
        return self.steps[-1] if self.steps else {}

    @cached_property
    def index(self) -> int | None:
        """Which experience of the plan is in progress."""
        names = [phase["name"] for phase in self.plan]
        name = self.step.get("experience")
        return names.index(name) if name in names else None

    @property
    def done(self) -> tuple[int, int] | None:
        """Domain tokens of the experience so far, and in all."""
        if self.index is None:
            return None
        phase = self.plan[self.index]
        return self.step["tokens"] - phase["begin"], phase["tokens"]

    @property
    def tokens_per_second(self) -> float | None:
        """All tokens of the recent steps by the seconds that they took, measurements apart."""
        seconds = [row["seconds"] for row in self._timed]
        return sum(row["trained"] for row in self._timed) / sum(seconds) if seconds and sum(seconds) else None

    @property
    def seconds_left(self) -> float | None:
        """Of all steps and measurements to come, each taking what the recent ones took."""
        if self.index is None or not self._timed:
            return None
        steps = self.plan[self.index]["steps"] - self.step["step"]
        steps += sum(phase["steps"] for phase in self.plan[self.index + 1 :])
        last = self.results[-1]["point"] if self.results else 0
        points = self.plan[-1]["first_point"] + self.plan[-1]["points"] - 1 - last
        measuring = {row["benchmark"]: row.get("seconds", 0) for row in self.results if row["point"] == last}
        each = sum(row["seconds"] for row in self._timed) / len(self._timed)
        return steps * each + points * sum(measuring.values())

    def mean(self, key: str) -> float | None:
        """Of a value over the recent steps of this experience that have it."""
        found = [row[key] for row in self._here if key in row]
        return sum(found) / len(found) if found else None

    @property
    def losses(self) -> dict[str, float]:
        """By source, over the recent steps."""
        keys = dict.fromkeys(key for row in self._here for key in row if key.startswith("loss/"))
        return {key.removeprefix("loss/"): value for key in keys if (value := self.mean(key)) is not None}

    @cached_property
    def _here(self) -> list[Row]:
        return [row for row in self.steps if row["experience"] == self.step["experience"]]

    @cached_property
    def _timed(self) -> list[dict[str, float]]:
        """Tokens and seconds of the recent steps but the first, whose tokens are not known."""
        found = []
        for before, row in zip(self.steps, list(self.steps)[1:], strict=False):
            trained = row["all_tokens"] - before["all_tokens"]
            if trained > 0 and row.get("tokens_per_second"):
                found.append({"trained": trained, "seconds": trained / row["tokens_per_second"]})
        return found


class Follower:
    """Looks at a run again and again; each look reads what is new."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.train, self.measured = Tail(run.path / TRAIN, most=END), Tail(run.path / RESULTS)
        self.steps: deque[Row] = deque(maxlen=RECENT)
        self.results: list[Row] = []
        self.passed = {TRAIN: 0, RESULTS: 0}  # rows that are not as they must be
        self.floors: list[str] = []
        self.floors_at = 0  # the point that was looked at for them

    def look(self) -> Seen:
        """What is known now."""
        # The status first: whatever was written before the end of a run is then seen with it.
        status, state = self.run.status(), self.run.state()
        self._read(self.train, TRAIN, self.steps, wrong_step)
        self._read(self.measured, RESULTS, self.results, wrong_score)
        elsewhere = status["state"] == "running" and status.get("host") != socket.gethostname()
        return Seen(
            state="elsewhere" if elsewhere else state,
            reason=status.get("reason", ""),
            host=str(status.get("host", "")),
            plan=_plan(status),
            steps=list(self.steps),
            results=list(self.results),
            silent=self._silent(),
            floors=self._floors(),
            damage=self._damage(over=state == "complete"),
        )

    def _read(self, tail: Tail, name: str, kept: deque[Row] | list[Row], wrong_with: Callable[[Row], str]) -> None:
        rows, fresh = tail.rows()
        if fresh:
            kept.clear()
            self.passed[name] = 0
        sound = [row for row in rows if not wrong_with(row)]
        self.passed[name] += len(rows) - len(sound)
        kept.extend(row for row in sound if tail is self.measured or all(key in row for key in OF_A_STEP))

    def _damage(self, over: bool) -> list[str]:
        """over: the run is complete, so that what is not there will not come."""
        found = []
        for tail, name in ((self.train, TRAIN), (self.measured, RESULTS)):
            file = self.run.path / name
            if tail.trouble:
                found.append(f"{file} cannot be read ({tail.trouble})")
            elif lines := tail.damaged + self.passed[name]:
                what = "a line is" if lines == 1 else f"{lines:,} lines are"
                found.append(f"{file} is damaged: {what} passed over; `clmed report` names the first")
            elif over and tail.torn:
                found.append(f"{file} is damaged: its last line is cut off")
            elif over and tail is self.measured and not self.results and self._asks():
                found.append(f"{file} holds no scores")
        return found

    def _asks(self) -> bool:
        """Whether its configuration names a benchmark."""
        evaluation = Run(path=self.run.path).config.get("evaluation") or {}
        return bool(evaluation.get("gain") or evaluation.get("retention"))

    def _floors(self) -> list[str]:
        """What the run itself says of floors at its last whole point; looked at once a point."""
        point = last_point(self.results)
        if point != self.floors_at:
            said: list[str] = []
            # Its answers come a moment after its scores: at the next look. Of what is damaged no floor is known.
            with suppress(UserError, KeyError, TypeError, ValueError):
                limits = (Run(path=self.run.path).config.get("evaluation") or {}).get("floors") or {}
                Floors(limits, stop=False, directory=self.run, say=said.append).look(point)
                self.floors, self.floors_at = [line.strip() for line in said], point
        return self.floors

    def _silent(self) -> float:
        changed = [file.stat().st_mtime for name in (STATUS, TRAIN, RESULTS) if (file := self.run.path / name).exists()]
        return max(0.0, time.time() - max(changed, default=time.time()))


def _plan(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Nothing where somebody has changed it."""
    plan = status.get("plan")
    if not isinstance(plan, list) or not all(isinstance(phase, dict) and "name" in phase for phase in plan):
        return ()
    return plan if all(isinstance(phase.get(key), int) for phase in plan for key in OF_A_PHASE) else ()
