"""Asynchronous successive halving, stopping variant, on the values that trials reported.

Optuna's own pruner is the promotion variant: with a bootstrap, it prunes every trial until enough have reached a rung;
and it refuses studies of several objectives. Here the first trials at a rung continue, and a later one stops if it is
not among the best that reached the rung.
"""

from collections.abc import Sequence

import numpy as np

from core.campaign.campaign import Pruner
from core.campaign.goals import Goals
from core.campaign.trials import TrialRecord


def should_stop(pruner: Pruner, goals: Goals, trial: TrialRecord, trials: Sequence[TrialRecord]) -> bool:
    """Whether a trial that just reported stops: at a rung, unless it is in the best 1 / reduction_factor there.

    Rungs are at min_epochs × reduction_factor^k epochs. With several goals, the first one decides, and a trial competes
    only with those that are at least as good in all others at that rung: one that it would dominate, or that it has
    something over, cannot stop it.

    Source: Li et al. 2018 (1810.05934) §3; the stopping variant is that of Ray Tune and Syne Tune. Competing within the
    trials that are no worse in the other goals follows the idea of non-dominated ranks in multi-objective successive
    halving (Schmucker et al. 2021, 2106.12639).
    """
    step = max(trial.reports, default=0)
    if pruner.kind == "none" or not _is_rung(step, pruner):
        return False
    mine = trial.reports[step]
    reached = [other.reports[step] for other in trials if step in other.reports]
    rivals = [values[0] for values in reached if _as_good_elsewhere(values, mine, goals)]
    if len(rivals) <= pruner.bootstrap:
        return False
    return bool(mine[0] < np.quantile(rivals, 1 - 1 / pruner.reduction_factor))


def _as_good_elsewhere(values: Sequence[float], mine: Sequence[float], goals: Goals) -> bool:
    others = zip(goals[1:], values[1:], mine[1:], strict=True)
    return all(goal.at_least_as_good(value, own) for goal, value, own in others)


def _is_rung(step: int, pruner: Pruner) -> bool:
    rung = pruner.min_epochs
    while rung < step:
        rung *= pruner.reduction_factor
    return rung == step
