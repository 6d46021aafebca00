"""Honest intervals: how far a number would move with other questions and other seeds, and what may be said of it."""

from clmed.results.statistics.estimate import Estimate as Estimate
