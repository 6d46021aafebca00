"""Runs side by side: gain, retention and forgetting with intervals, what they cost, and who is on the front."""

from clmed.results.comparison.compare import compare as compare
from clmed.results.comparison.rows import Cell as Cell
from clmed.results.comparison.rows import Comparison as Comparison
from clmed.results.comparison.rows import Row as Row
