"""Comparison of models on the same queries: differences with paired intervals, and tables of several models.

Two models answer the same queries, so differences are taken per query, and their intervals come from resampling
buildings: they are far narrower than the intervals of the two models would suggest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.bootstrap import bootstrap_difference
from core.errors import UserError
from core.records import OPTIMISTIC, RETRIEVAL_KEYS, Interval, Samples, Scorecard, parts_of

Verdict = Literal["better", "worse", "not distinguishable"]
LOWER_IS_BETTER = frozenset({"box_l1"})
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """Second model minus first, on one metric."""

    metric: str
    first: float
    second: float
    interval: Interval
    """95 % interval of the difference."""
    verdict: Verdict
    """On the second model; better or worse only if the interval excludes 0."""


def compare(first: Mapping[str, Samples], second: Mapping[str, Samples]) -> list[Difference]:
    """Compare two models by their samples, one per query or region.

    Args:
        first, second: metric → samples, in the same order of queries.
    Raises:
        UserError: they were not measured on the same gallery.
    """
    if first.keys() != second.keys():
        raise UserError("the models were not measured by the same metrics", how="evaluate both on the same split")
    differences = []
    for metric, a in first.items():
        b = second[metric]
        if not np.array_equal(a.groups, b.groups):
            raise UserError(f"{metric} was measured on different galleries", how="evaluate both on the same split")
        interval = paired_interval(a.values, b.values, a.groups)
        differences.append(
            Difference(metric, float(a.values.mean()), float(b.values.mean()), interval, _verdict(metric, interval))
        )
    return differences


def paired_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], groups: NDArray[np.int64], *, seed: int = 0
) -> Interval:
    """Mean of second − first with its 95 % percentile interval by bootstrap over groups (Efron 1979).

    Args:
        first, second, groups: [N], one row per query.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, weights=second - first), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(counts), size=(DRAWS, len(counts)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(value=float((second - first).mean()), low=float(low), high=float(high))


def compare_objective(first: Mapping[str, Samples], second: Mapping[str, Samples], objective: str) -> Difference:
    """Compare two models by the objective alone; recall_mean is the mean of six recalls, each of its own queries.

    Args:
        first, second: metric → samples, in the same order of queries.
    """
    parts = parts_of(objective)
    before, after = (float(np.mean([each[name].values.mean() for name in parts])) for each in (first, second))
    interval = bootstrap_difference(first, second, objective)
    return Difference(objective, before, after, interval, _verdict(objective, interval))


def _verdict(metric: str, interval: Interval) -> Verdict:
    if interval.low <= 0 <= interval.high:
        return "not distinguishable"
    return "better" if (interval.low > 0) != (metric in LOWER_IS_BETTER) else "worse"


def comparison_table(differences: Sequence[Difference], first: Scorecard, second: Scorecard) -> pd.DataFrame:
    """The methodology's table: metric, single_stage, two_stage, difference, low, high, verdict.

    Rows of cost (epochs, seconds, memory, parameters) and those with ties counted for the query have no interval or
    verdict.
    """
    rows: list[dict[str, object]] = [
        {
            "metric": difference.metric,
            "single_stage": difference.first,
            "two_stage": difference.second,
            "difference": difference.interval.value,
            "low": difference.interval.low,
            "high": difference.interval.high,
            "verdict": difference.verdict,
        }
        for difference in differences
    ]
    for metric, (a, b) in _optimistic_pairs(first, second).items():
        rows.append({"metric": metric, "single_stage": a, "two_stage": b, "difference": b - a, "verdict": "–"})
    for metric, a in cost(first).items():
        b = cost(second)[metric]
        rows.append({"metric": metric, "single_stage": a, "two_stage": b, "difference": b - a, "verdict": "–"})
    return pd.DataFrame(rows)


def _optimistic_pairs(first: Scorecard, second: Scorecard) -> dict[str, tuple[float, float]]:
    """Recalls by building with ties counted for the query, of both models, where that differs for one of them."""
    plain = [card.find("building", reranked=False) for card in (first, second)]
    names = [name for name in RETRIEVAL_KEYS if any(name in each.optimistic for each in plain)]
    values = ({name: each.optimistic.get(name, each.metrics[name]) for name in names} for each in plain)
    a, b = values
    return {f"{name}_{OPTIMISTIC}": (a[name], b[name]) for name in names}


def tie_notes(cards: Sequence[Scorecard]) -> list[str]:
    """What the rows with ties counted for the query are, if there are any."""
    if not any(card.find("building", reranked=False).optimistic for card in cards):
        return []
    return [f"Ties count against the query, in rows that end in _{OPTIMISTIC} for it; these stand where they differ."]


def benchmark_table(cards: Mapping[str, Scorecard]) -> pd.DataFrame:
    """One row a model: every retrieval figure by building, regions with their verdicts, and cost.

    Args:
        cards: label → scorecard, measured on the same features.
    Raises:
        UserError: two of them were trained on other features.
    """
    fingerprints = {label: card.fingerprint for label, card in cards.items()}
    if len(set(fingerprints.values())) > 1:
        trained_on = ", ".join(f"{label} on {fingerprint}" for label, fingerprint in fingerprints.items())
        raise UserError(f"the checkpoints were trained on different features ({trained_on})", how="leave some out")
    rows = []
    tied = {name for card in cards.values() for name in card.find("building", reranked=False).optimistic}
    for label, card in cards.items():
        plain = card.find("building", reranked=False)
        favourable = plain.metrics | plain.optimistic
        figures = plain.metrics | {f"{name}_{OPTIMISTIC}": favourable[name] for name in plain.metrics if name in tied}
        for other in card.evaluations:
            if other.protocol == plain.protocol and other.variant:
                figures |= {f"{name}{other.variant}": other.metrics[name] for name in (*RETRIEVAL_KEYS, "recall_mean")}
        verdicts = {f"{name}_verdict": grounding.verdict for name, grounding in card.grounding.items()}
        rows.append({"label": label, **figures, **card.regions, **verdicts, **cost(card)})
    return pd.DataFrame(rows)


def grounding_notes(cards: Mapping[str, Scorecard]) -> list[str]:
    """A line for each model whose boxes and relations were judged, which says whether they depend on the image.

    Args:
        cards: label → scorecard.
    """
    return [
        f"{label}: {', '.join(f'{name} {grounding.verdict}' for name, grounding in card.grounding.items())} "
        "(against the sentence alone and shuffled images)."
        for label, card in cards.items()
        if card.grounding
    ]


def read_notes(cards: Sequence[Scorecard]) -> list[str]:
    """A line for each final model whose test split was read more than once."""
    return [
        f"{card.checkpoint}: the test split was read {card.test_reads} times for this model, this time included."
        for card in cards
        if card.test_reads > 1
    ]


def cost(card: Scorecard) -> dict[str, float]:
    """What it took to train a model."""
    efficiency = card.efficiency
    return {
        "training_epochs": efficiency.training_epochs,
        "training_seconds": efficiency.training_seconds,
        "training_peak_memory_mb": efficiency.training_peak_memory_mb,
        "trainable_parameters": efficiency.trainable_parameters,
    }
