from collections.abc import Sequence
from typing import get_args

import pytest

from core.campaign.campaign import Pruner
from core.campaign.goals import Goal, Goals
from core.campaign.trials import TrialRecord
from search.study.pruner import should_stop

RECALL: Goals = (Goal(figure="recall_mean", direction="max"),)
SMALL: Goals = (*RECALL, Goal(figure="trainable_parameters", direction="min"))


def stopped_at(curves: Sequence[Sequence[tuple[float, ...]]], pruner: Pruner, goals: Goals) -> list[int | None]:
    """The epoch at which each trial is stopped; trials run one after the other."""
    trials: list[TrialRecord] = []
    stops: list[int | None] = []
    for number, curve in enumerate(curves):
        stop, reports = None, {}
        for epoch, values in enumerate(curve, start=1):
            reports[epoch] = values
            trial = TrialRecord(number, "running", number, reports=dict(reports))
            if should_stop(pruner, goals, trial, [*trials, trial]):
                stop = epoch
                break
        trials.append(trial)
        stops.append(stop)
    return stops


def flat(*values: float, epochs: int = 4) -> list[list[tuple[float, ...]]]:
    return [[(value,)] * epochs for value in values]


def test_the_first_trials_at_a_rung_continue_and_a_later_worse_one_stops() -> None:
    pruner = Pruner(min_epochs=1, reduction_factor=3, bootstrap=3)
    assert stopped_at(flat(0.1, 0.2, 0.3, 0.15, 0.4), pruner, RECALL) == [None, None, None, 1, None]


def test_it_looks_only_at_rungs() -> None:
    pruner = Pruner(min_epochs=2, reduction_factor=2, bootstrap=1)
    assert stopped_at(flat(0.5, 0.1, epochs=5), pruner, RECALL) == [None, 2]
    late = [(0.5,), (0.5,), (0.1,), (0.1,), (0.1,)]
    assert stopped_at([*flat(0.5, epochs=5), late], pruner, RECALL) == [None, 4]


def test_ties_continue() -> None:
    pruner = Pruner(min_epochs=1, reduction_factor=3, bootstrap=1)
    assert stopped_at(flat(0.2, 0.2, 0.2, epochs=1), pruner, RECALL) == [None, None, None]


def test_a_campaign_that_does_not_prune_stops_nothing() -> None:
    pruner = Pruner(kind="none", min_epochs=1, reduction_factor=2, bootstrap=0)
    assert stopped_at(flat(0.9, 0.1), pruner, RECALL) == [None, None]


def test_every_kind_of_pruner_is_tested_here() -> None:
    assert set(get_args(Pruner.model_fields["kind"].annotation)) == {"asha", "none"}


@pytest.mark.parametrize(("parameters", "stop"), [(100.0, 1), (50.0, None), (200.0, 1)])
def test_a_trial_with_something_over_the_better_ones_is_not_stopped_by_them(
    parameters: float, stop: int | None
) -> None:
    """Three trials of 100 parameters with good recall, then one with bad recall and this many parameters."""
    pruner = Pruner(min_epochs=1, reduction_factor=3, bootstrap=2)
    good = [[(0.5, 100.0)]] * 3
    assert stopped_at([*good, [(0.1, parameters)]], pruner, SMALL)[-1] == stop
