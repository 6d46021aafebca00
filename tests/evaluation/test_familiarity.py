"""What a run notes of its sources before training."""

import math

import numpy as np
import pytest
from datasets import Dataset

from clmed.data.corpus import Rows
from clmed.evaluation.familiarity import context_free, scripts


def test_scripts_of_letters() -> None:
    assert scripts("абвг ab 12, 感冒") == {"CYRILLIC": 0.5, "LATIN": 0.25, "CJK": 0.25}
    assert scripts("12 … 7.") == {}


def test_words_in_random_order_cost_their_entropy() -> None:
    """Three tokens with shares 1/2, 1/4, 1/4; padding does not count."""
    data = Dataset.from_dict({"input_ids": [[5, 5, 6, 9], [5, 5, 6, 9], [7, 7, 9, 9]]}).with_format("numpy")
    sizes = np.array([3, 3, 2])
    rows = Rows(data=data, tokens=sizes, supervised=sizes, mass=sizes, bytes=sizes)
    assert context_free(rows) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
