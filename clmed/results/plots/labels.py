"""Labels beside points of a plane, none over another, over a point or over the edge."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Place = tuple[float, float]

# Inches between a point's centre and the nearest edge of its label; directions around it, in degrees. The first are the
# best.
DISTANCES = (0.05, 0.09, 0.14, 0.2, 0.28, 0.38, 0.5, 0.65, 0.8, 1.0, 1.3, 1.6)
DIRECTIONS = np.deg2rad((0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 67, 293, 113, 247))
WAYS = np.stack([np.cos(DIRECTIONS), np.sin(DIRECTIONS)], axis=1)
GAP = 0.02  # between labels
NEAR = 0.1  # farther away, a line joins the two
ATTEMPTS = 10
SHY = 0.3  # how far a label goes to keep off the lines of the plane


def place_labels(
    points: Sequence[Place],
    sizes: Sequence[Place],
    extent: Place,
    others: Sequence[Place] = (),
    lines: Sequence[Sequence[Place]] = (),
    polite: bool = False,
) -> list[Place] | None:
    """Centres of the labels, each at the nearest free place; None if one finds none (the plane is too small).

    points: in inches from the lower left corner of a plane of `extent`; sizes: width and height of their labels;
    others: more points that no label may hide; lines: what labels keep off where that is easy; polite: no line from a
    point to its label passes over another point, else that is avoided only. Greedy, the most crowded points first, as
    they have the least choice; a label that finds no place is the first of the next attempt.
    """
    if not points:
        return []
    spots = np.array([*points, *others], dtype=float)
    distances = np.linalg.norm(spots[: len(points), None] - spots[None], axis=-1)
    order = [int(index) for index in np.argsort(np.sort(distances, axis=1)[:, :6].sum(axis=1), kind="stable")]
    halves, drawn = np.array(sizes) / 2, np.array([[*start, *end] for start, end in lines]).reshape(-1, 4)
    for _ in range(ATTEMPTS):
        found: dict[int, np.ndarray] = {}
        plane = _Plane(spots=spots, extent=extent, polite=polite)
        for index in order:
            centre = plane.find(spots[index], halves[index], drawn)
            if centre is None:
                # Next time it has the first choice.
                order.remove(index)
                order.insert(0, index)
                break
            plane.take(spots[index], centre, halves[index])
            found[index] = centre
        else:
            return [(float(found[index][0]), float(found[index][1])) for index in range(len(points))]
    return None


def nearest(point: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """The point of a box that is nearest to `point`."""
    return np.clip(point, centre - half, centre + half)


@dataclass
class _Plane:
    """What no label may cover: spots; boxes of labels (left, bottom, right, top); lines to them (x, y to x, y)."""

    spots: np.ndarray
    extent: Place
    polite: bool
    radius: float = 0.04  # of a spot's marker
    boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))
    lines: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))

    def find(self, own: np.ndarray, half: np.ndarray, drawn: np.ndarray) -> np.ndarray | None:
        """The nearest centre for a label of this half size at which it is in nobody's way.

        Nearby it is off the lines that are drawn; if it can be, the line to it passes over no other spot.
        """
        near = [distance for distance in DISTANCES if distance <= SHY]
        far = [distance for distance in DISTANCES if distance > SHY]
        choices = (
            (near, True, drawn),
            (near, True, drawn[:0]),
            (far, True, drawn),
            (DISTANCES, self.polite, drawn[:0]),
        )
        for distance, polite, shy in ((d, polite, shy) for distances, polite, shy in choices for d in distances):
            for way in WAYS:
                centre = own + way * (distance + half)
                low, high = centre - half, centre + half
                if (
                    self._is_free(low, high)
                    and not crosses(shy, low, high).any()
                    and (distance <= NEAR or self._is_open(own, nearest(own, centre, half), polite))
                ):
                    return centre
        return None

    def take(self, own: np.ndarray, centre: np.ndarray, half: np.ndarray) -> None:
        """A label is here, and a line to it where it is far from its point."""
        self.boxes = np.vstack([self.boxes, [*(centre - half - GAP), *(centre + half + GAP)]])
        end = nearest(own, centre, half)
        if np.linalg.norm(end - own) > NEAR:
            self.lines = np.vstack([self.lines, [*own, *end]])

    def _is_free(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether a label may be in this box."""
        if (low < 0).any() or (high > self.extent).any():
            return False
        if ((self.spots + self.radius > low) & (self.spots - self.radius < high)).all(axis=1).any():
            return False
        if ((self.boxes[:, 2:] > low) & (self.boxes[:, :2] < high)).all(axis=1).any():
            return False
        return not crosses(self.lines, low, high).any()

    def _is_open(self, own: np.ndarray, end: np.ndarray, polite: bool) -> bool:
        """Whether a line may lead from this spot to the end."""
        line = np.array([[*own, *end]])
        # A marker that touches its own can hardly be avoided.
        far = np.linalg.norm(self.spots - own, axis=1) > 2 * self.radius
        strangers = self.spots[far] if polite else self.spots[:0]
        return not (
            crosses(line, self.boxes[:, :2], self.boxes[:, 2:]).any()
            or crosses(line, strangers - self.radius, strangers + self.radius).any()
        )


def crosses(lines: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which lines (from x, y to x, y) pass through a box, or which boxes one line passes through.

    Along a line, the stretches between the box's left and right and between its lower and upper edge must overlap.
    """
    start, way = lines[:, :2], lines[:, 2:] - lines[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (low - start) / way, (high - start) / way
    # A line along an axis is between the box's edges always or never.
    inside = (start > low) & (start < high)
    enter = np.where(way == 0, np.where(inside, 0.0, np.inf), np.minimum(one, other)).max(axis=1)
    leave = np.where(way == 0, np.where(inside, 1.0, -np.inf), np.maximum(one, other)).min(axis=1)
    return np.maximum(enter, 0) < np.minimum(leave, 1)
