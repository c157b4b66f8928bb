"""Asynchronous successive halving, stopping variant, on the intermediate values in the study.

Optuna's own pruner is the promotion variant: with a bootstrap, it prunes every trial until enough have reached a rung.
Here the first trials at a rung continue, and a later one stops if it is not among the best that reached the rung.
"""

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial


class AshaPruner(BasePruner):  # type: ignore[misc]
    """Prunes a trial at a rung unless its value there is in the best 1 / reduction_factor of all that reached the rung.

    Rungs are at min_epochs × reduction_factor^k epochs.

    Source: Li et al. 2018 (1810.05934) §3; the stopping variant is that of Ray Tune and Syne Tune.
    """

    def __init__(self, *, min_epochs: int, reduction_factor: int, bootstrap: int) -> None:
        self._min_epochs = min_epochs
        self._reduction_factor = reduction_factor
        self._bootstrap = bootstrap

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial, having just reported, should stop; higher values are better."""
        step = trial.last_step
        if step is None or not self._is_rung(step):
            return False
        trials = study.get_trials(deepcopy=False)
        reached = [other.intermediate_values[step] for other in trials if step in other.intermediate_values]
        if len(reached) <= self._bootstrap:
            return False
        cutoff = np.quantile(reached, 1 - 1 / self._reduction_factor)
        return bool(trial.intermediate_values[step] < cutoff)

    def _is_rung(self, step: int) -> bool:
        rung = self._min_epochs
        while rung < step:
            rung *= self._reduction_factor
        return rung == step
