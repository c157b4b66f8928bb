"""Confirmations judged on made-up samples: what is known to differ, and what is noise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.confirmation import Confirmed, _judge, mean_figures
from core.campaign.constraints import Constraints
from core.campaign.trials import TrialRecord
from core.records import RETRIEVAL_KEYS, Samples
from tests.conftest import epoch_metrics

BUILDINGS, QUERIES = 60, 4
GROUPS = np.repeat(np.arange(BUILDINGS) + 7, QUERIES)


def repeat(number: int, parent: int, seed: int, chance: float) -> tuple[TrialRecord, dict[str, Samples]]:
    """Hits of a trial that finds each query by a chance; buildings differ in difficulty, alike for every trial."""
    difficulty = np.repeat(np.random.default_rng(5).uniform(-0.2, 0.2, BUILDINGS), QUERIES)
    rng = np.random.default_rng([parent, seed])
    samples = {
        metric: Samples((rng.random(len(GROUPS)) < chance + difficulty).astype(float), GROUPS)
        for metric in RETRIEVAL_KEYS
    }
    value = float(np.mean([each.values.mean() for each in samples.values()]))
    return TrialRecord(number, "complete", number, confirms=parent, seed=seed, value=value), samples


def confirm(chances: dict[int, float], *, seeds: int = 4) -> dict[int, Confirmed]:
    by_parent = {
        parent: [repeat(100 + parent, parent, seed, chance) for seed in range(1, seeds + 1)]
        for parent, chance in chances.items()
    }
    return judge(by_parent, searched=0.9)


def judge(
    by_parent: dict[int, list[tuple[TrialRecord, dict[str, Samples]]]], *, searched: float
) -> dict[int, Confirmed]:
    """Those of one campaign."""
    repeats = {(0, parent): of_parent for parent, of_parent in by_parent.items()}
    trials = {(0, number): TrialRecord(number, "complete", number, value=searched) for number in by_parent}
    return {each.trial: each for each in _judge(repeats, trials, "recall_mean").values()}


def test_the_mean_is_that_of_the_seeds_and_lies_in_its_interval() -> None:
    for each in confirm({0: 0.4, 3: 0.6}).values():
        assert each.mean.value == pytest.approx(np.mean(each.values))
        assert each.mean.low < each.mean.value < each.mean.high
        assert each.seeds == [1, 2, 3, 4]


def test_a_clear_difference_gets_another_rank_and_noise_does_not() -> None:
    confirmed = confirm({0: 0.4, 1: 0.6, 2: 0.601, 3: 0.602})
    assert [confirmed[trial].rank for trial in (1, 2, 3)] == [1, 1, 1]
    assert confirmed[0].rank == 4
    assert list(confirmed)[-1] == 0


def test_the_gain_is_paired_so_that_hard_buildings_cancel() -> None:
    gain = confirm({0: 0.4, 1: 0.6})[1].gain
    assert gain.low > 0
    mean = confirm({0: 0.4, 1: 0.6})[1].mean
    assert gain.high - gain.low < 2 * (mean.high - mean.low)
    itself = confirm({0: 0.4})[0].gain
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)


def test_the_curse_is_what_the_search_said_beyond_the_mean() -> None:
    confirmed = confirm({0: 0.4})[0]
    assert confirmed.curse == pytest.approx(0.9 - confirmed.mean.value)


def test_an_interval_over_seeds_and_buildings_is_wider_than_over_buildings_of_one_seed() -> None:
    """Trials whose seeds differ greatly: the interval must say so."""
    steady = [repeat(1, 0, seed, 0.5) for seed in (1, 2, 3, 4)]
    unsteady = [repeat(1, 1, seed, chance) for seed, chance in zip((1, 2, 3, 4), (0.3, 0.45, 0.55, 0.7), strict=True)]
    judged = {trial: each.mean for trial, each in judge({0: steady, 1: unsteady}, searched=0.5).items()}
    assert judged[1].high - judged[1].low > 1.5 * (judged[0].high - judged[0].low)


@given(st.dictionaries(st.integers(0, 6), st.floats(0.2, 0.8), min_size=1, max_size=4), st.integers(2, 4))
def test_ranks_follow_means_and_the_best_is_never_beaten(chances: dict[int, float], seeds: int) -> None:
    confirmed = list(confirm(chances, seeds=seeds).values())
    means = [each.mean.value for each in confirmed]
    assert means == sorted(means, reverse=True)
    assert confirmed[0].rank == 1
    assert all(1 <= each.rank <= len(confirmed) for each in confirmed)


def test_constraints_are_judged_by_means_over_the_seeds() -> None:
    """One trial keeps its boxes under one seed and loses them under the other; another was not measured once."""
    constraints = Constraints.model_validate({"box_iou": {"at_least": "baseline"}})
    baseline, unsteady, steady, unknown = (
        [
            (replace(trial, best=epoch_metrics(box_iou=iou)), samples)
            for (trial, samples), iou in zip([repeat(9, 1, seed, 0.5) for seed in (1, 2)], ious, strict=True)
        ]
        for ious in ((0.5, 0.5), (0.6, 0.1), (0.6, 0.45), (0.9, None))
    )
    for repeats, broken in ((baseline, ()), (unsteady, ("box_iou",)), (steady, ()), (unknown, ("box_iou",))):
        assert constraints.broken(mean_figures(repeats), mean_figures(baseline)) == broken
