"""Intervals of means whose samples are of buildings: rows of one building are not independent, so these are drawn."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.records import Interval, Samples, parts_of

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
        sums, counts = by_building(part, groups)
        draws += (weights @ sums) / (weights @ counts)
    low, high = np.quantile(draws / len(parts), [0.025, 0.975])
    return Interval(float(np.mean([part.values.mean() for part in parts])), float(low), float(high))


def bootstrap_difference(first: Mapping[str, Samples], second: Mapping[str, Samples], metric: str) -> Interval:
    """Second model minus first on a metric, query by query, as `bootstrap_mean`; recall_mean is that of six recalls.

    Args:
        first, second: metric → samples, in the same order of queries.
    """
    return bootstrap_mean(
        [Samples(second[name].values - first[name].values, first[name].groups) for name in parts_of(metric)]
    )


def by_building(samples: Samples, groups: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum and number of the values of each building [G].

    Args:
        groups: the buildings [G], sorted; 0 for those without a value.
    """
    index = np.searchsorted(groups, samples.groups)
    sums = np.bincount(index, weights=samples.values, minlength=len(groups))
    return sums.astype(np.float64), np.bincount(index, minlength=len(groups))
