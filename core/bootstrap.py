"""Intervals of means whose samples are of buildings: rows of one building are not independent, so these are drawn."""

from collections.abc import Sequence

import numpy as np

from core.records import Interval, Samples

DRAWS = 2000


def bootstrap_mean(parts: Sequence[Samples], *, seed: int = 0) -> Interval:
    """The mean over several samples of their means, with its 95 % interval; buildings are drawn once for all of them.

    Args:
        parts: for instance the hits behind several recalls, or their differences between two models; each of them has
            a row of every building.
    Source: percentile intervals, Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    groups = np.unique(parts[0].groups)
    shares = np.full(len(groups), 1 / len(groups))
    weights = np.random.default_rng(seed).multinomial(len(groups), shares, size=DRAWS)  # [DRAWS, buildings]
    draws = np.zeros(DRAWS)
    for part in parts:
        index = np.searchsorted(groups, part.groups)
        sums = np.bincount(index, weights=part.values, minlength=len(groups))
        draws += (weights @ sums) / (weights @ np.bincount(index, minlength=len(groups)))
    low, high = np.quantile(draws / len(parts), [0.025, 0.975])
    return Interval(float(np.mean([part.values.mean() for part in parts])), float(low), float(high))
