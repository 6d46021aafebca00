"""Naive: train on each experience as it comes."""

from clmed.strategy import Strategy


class Naive(Strategy):
    """Train on each experience as it comes, with nothing against forgetting: the lower reference.

    Family: references
    Source: the usual name for plain sequential fine-tuning (Lomonaco et al., 2021, "Avalanche", arXiv 2104.00405)
    """
