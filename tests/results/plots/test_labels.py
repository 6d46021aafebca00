"""Labels beside points: checked against the definition, box by box."""

import random

import numpy as np
import pytest

from clmed.results.plots.labels import DISTANCES, crosses, nearest, place_labels


def overlap(one, other) -> bool:
    return bool((np.minimum(one[1], other[1]) > np.maximum(one[0], other[0]) + 1e-9).all())


@pytest.mark.parametrize("seed", range(5))
def test_labels_hide_nothing_and_stay_inside(seed):
    noise = random.Random(seed)
    extent = (2.7, 5.0)
    # Half of them crowded, as methods are.
    spots = [(noise.uniform(0.1, 2.6), noise.uniform(0.1, 3.4)) for _ in range(15)]
    spots += [(noise.gauss(1.3, 0.3), noise.gauss(1.7, 0.3)) for _ in range(15)]
    sizes = [(noise.uniform(0.2, 0.7), noise.choice([0.1, 0.2])) for _ in spots]
    centres = place_labels(spots, sizes, extent)
    assert centres is not None
    boxes = [(np.subtract(c, np.divide(s, 2)), np.add(c, np.divide(s, 2))) for c, s in zip(centres, sizes, strict=True)]
    for number, (low, high) in enumerate(boxes):
        assert (low >= 0).all() and (high <= extent).all()
        assert not any(overlap((low, high), other) for other in boxes[:number])
        assert not any((low < spot).all() and (high > spot).all() for spot in spots)
        end = nearest(np.array(spots[number]), np.array(centres[number]), np.divide(sizes[number], 2))
        assert np.linalg.norm(end - spots[number]) <= DISTANCES[-1] * 2**0.5 + 1e-9


def test_a_label_alone_is_right_beside_its_point():
    [(x, y)] = place_labels([(1, 1)], [(0.5, 0.1)], (3, 3))
    assert (x, y) == pytest.approx((1 + DISTANCES[0] + 0.25, 1))
    # At the right edge it goes to the left; off a line that runs there, above.
    assert place_labels([(2.9, 1)], [(0.5, 0.1)], (3, 3))[0][0] < 2.9
    [(x, y)] = place_labels([(2.9, 1)], [(0.1, 0.1)], (3, 3), lines=[[(0, 1), (3, 1)]])
    assert y > 1.05


def test_no_room_is_told():
    assert place_labels([], [], (1, 1)) == []
    assert place_labels([(0.5, 0.5)], [(1.2, 0.1)], (1, 1)) is None
    assert place_labels([(0.5, 0.5)] * 50, [(0.4, 0.1)] * 50, (1, 1)) is None


def test_a_line_through_a_box_is_seen():
    noise = np.random.default_rng(0)
    lines = noise.uniform(0, 1, (400, 4))
    lines[:50, 0], lines[50:100, 1] = lines[:50, 2], lines[50:100, 3]  # upright, level
    low, high = np.array([0.4, 0.3]), np.array([0.6, 0.5])
    ways = np.linspace(0, 1, 4001)[:, None, None]
    along = lines[:, :2] + ways * (lines[:, 2:] - lines[:, :2])
    expected = ((along > low) & (along < high)).all(axis=2).any(axis=0)
    assert 20 < expected.sum() < 300
    assert (crosses(lines, low, high) != expected).sum() == 0
