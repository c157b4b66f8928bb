"""CMA-ES as a sampler, for the settings that are numbers and that every trial has.

Optuna's own keeps its state in the study as a pickle, and nothing in a campaign's folder is ever unpickled; it also
stops for good when its dimensions change. Here the state lives as long as a session.
"""

import importlib
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

Solution = tuple[NDArray[np.float64], float]
"""A point [D] in the unit box, and its value, lower is better."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTED_FROM = 3
"""From how many of the best trials a session starts, at least; a tenth if that is more."""


class EvolutionSampler(BaseSampler):  # type: ignore[misc]
    """Maximises by CMA-ES. Each session starts it from the best trials so far, those of other campaigns included.

    Source: Nomura et al. 2021, WS-CMA-ES (2012.06932).
    """

    def __init__(self, *, seed: int, startup_trials: int, settings: Collection[str], others: BaseSampler) -> None:
        """
        Args:
            settings: those that every trial has.
            others: draws all that are not among them, or not numbers.
        """
        self._seed = seed
        self._startup_trials = startup_trials
        self._settings = settings
        self._others = others
        self._cma: Any = None
        self._generation: set[int] = set()
        """Numbers of the trials that it proposed since it was last told."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        shared = intersection_search_space(study.get_trials(deepcopy=False, states=ENDED), include_pruned=True)
        return {
            name: distribution
            for name, distribution in sorted(shared.items())
            if name in self._settings and isinstance(distribution, FloatDistribution | IntDistribution)
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        ended = study.get_trials(deepcopy=False, states=ENDED)
        if len(ended) < self._startup_trials or not search_space:
            return {}
        if self._cma is None:
            self._cma = self._start([_solution(each, search_space) for each in ended])
        self._tell([_solution(each, search_space) for each in ended if each.number in self._generation])
        self._generation.add(trial.number)
        point = self._cma.ask()
        return {name: _value(each, x) for (name, each), x in zip(search_space.items(), point, strict=True)}

    def _start(self, known: Sequence[Solution]) -> Any:
        cmaes = importlib.import_module("cmaes")  # an extra
        best = max(STARTED_FROM, len(known) // 10)
        mean, sigma, covariance = cmaes.get_warm_start_mgd(known, gamma=min(1.0, (best + 0.5) / len(known)))
        bounds = np.tile([0.0, 1.0], (len(mean), 1))
        return cmaes.CMA(mean=mean, sigma=sigma, cov=covariance, bounds=bounds, seed=self._seed)

    def _tell(self, generation: Sequence[Solution]) -> None:
        """Once it is full; trials of it that end later are not told any more."""
        if len(generation) >= self._cma.population_size:
            self._cma.tell(generation[: self._cma.population_size])
            self._generation.clear()

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._others.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._others.after_trial(study, trial, state, values)


def _solution(trial: FrozenTrial, space: dict[str, BaseDistribution]) -> Solution:
    """Where a trial lies, which is not what was proposed if its settings were queued."""
    return np.array([_coordinate(each, trial.params[name]) for name, each in space.items()]), -_score(trial)


def _score(trial: FrozenTrial) -> float:
    """Value of a complete trial; of a pruned one its last report, which was among the worse."""
    if trial.state == TrialState.COMPLETE:
        return float(trial.value)
    return float(trial.intermediate_values[trial.last_step]) if trial.intermediate_values else -math.inf


def _coordinate(distribution: BaseDistribution, value: float) -> float:
    """Where a value lies in the unit interval."""
    if isinstance(distribution, IntDistribution):
        return float((value - distribution.low + 0.5) / (distribution.high - distribution.low + 1))
    if distribution.log:
        return math.log(value / distribution.low) / math.log(distribution.high / distribution.low)
    return float((value - distribution.low) / (distribution.high - distribution.low))


def _value(distribution: BaseDistribution, coordinate: float) -> float | int:
    """The inverse of `_coordinate`."""
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return int(min(high, low + math.floor(coordinate * (high - low + 1))))
    value = low * (high / low) ** coordinate if distribution.log else low + coordinate * (high - low)
    return float(min(max(value, low), high))
