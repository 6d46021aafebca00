"""The measurement points of a run, how people name them, and where their weights are kept.

3                          by number (0 is the base model)
pretraining                the end of an experience
pretraining@750M           inside one, by its domain tokens
"""

from dataclasses import dataclass
from pathlib import Path

from clmed.complaints import did_you_mean
from clmed.errors import UserError
from clmed.quantities import quantity
from clmed.results import manifest
from clmed.results.metrics import Rows
from clmed.results.rundir import RunDirectory
from clmed.results.sound import sound_scores
from clmed.results.table import tokens_text


@dataclass(frozen=True)
class Point:
    """tokens: domain tokens of the whole run; inside: those of its experience."""

    number: int
    experience: str
    tokens: int
    inside: int
    final: bool

    @property
    def name(self) -> str:
        """As it may be written."""
        return self.experience if self.final else f"{self.experience}@{tokens_text(self.inside, 6)}"


def measured_points(rows: Rows) -> list[Point]:
    """Every point measured so far, in order. rows: of results.jsonl."""
    found: dict[int, Point] = {}
    start = before = 0
    experience = ""
    for row in rows:
        if row["experience"] != experience:
            experience, start = row["experience"], before
        before = row["tokens"]
        found[row["point"]] = Point(row["point"], experience, before, before - start, row["final"])
    return [found[number] for number in sorted(found)]


def find_point(run: RunDirectory, wanted: str) -> Point:
    """The point that somebody means. Raises UserError, which names those that there are."""
    points = measured_points(sound_scores(run))
    experience, at, amount = wanted.partition("@")
    own = [point for point in points if point.experience == experience]
    found: list[Point] = []
    if wanted.isdigit():
        found = [point for point in points if point.number == int(wanted)]
    elif not at:
        found = [point for point in own if point.final]
    elif own:
        try:
            tokens = quantity(amount)
        except ValueError as error:
            raise UserError(f"point '{wanted}': the part behind @ {error}.") from None
        # The first step that reaches it, or an end that falls short of its budget by less than a step.
        step = run.config()["training"]["tokens_per_step"]
        near = sorted(own, key=lambda point: abs(point.inside - tokens))
        found = [point for point in near if abs(point.inside - tokens) < step]
    if not found:
        known = ", ".join(f"{point.number} = {point.name}" for point in points) or "none yet"
        hint = did_you_mean(experience, dict.fromkeys(point.experience for point in points))
        raise UserError(f"{run.path} has no measurement point '{wanted}'{hint}. Its points: {known}.")
    return found[0]


def weights_of(run: RunDirectory, point: Point) -> Path:
    """The folder with the weights of a point: a checkpoint or, of a finished run's end, the saved model.

    Raises UserError if they were not kept.
    """
    kept = {}
    for folder in manifest.checkpoints(run.checkpoints):
        try:
            place = manifest.read(folder).values["place"]
        except ValueError:  # damaged: the error below tells what is left
            continue
        kept[place["point"] - 1, place["tokens"]] = folder
    if (point.number, point.tokens) in kept:
        return kept[point.number, point.tokens]
    points = measured_points(run.results())
    if point == points[-1] and run.status()["state"] == "complete" and run.model.is_dir():
        return run.model
    others = [each for each in points if (each.number, each.tokens) in kept]
    names = ", ".join(f"{each.number} = {each.name}" for each in others) or "none"
    raise UserError(
        f"{run.path} kept no weights of its point {point.number} ({point.name}), only of: {names}. Ends of experiences "
        "stay where training.share_experiences is on; points inside one need training.keep_measured or "
        f"training.keep_at: [{tokens_text(point.tokens, 6)}]."
    )
