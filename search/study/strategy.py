"""Builds Optuna's sampler from the settings of a campaign."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from core.campaign.campaign import Sampler, SamplerKind
from core.errors import UserError

NEEDED: dict[SamplerKind, str] = {"gp": "scipy", "cmaes": "cmaes", "qmc": "scipy"}
"""Package beyond our dependencies that a sampler imports when it first proposes."""


def require_sampler(kind: SamplerKind) -> None:
    """Raise UserError if the package that a sampler needs is not installed."""
    package = NEEDED.get(kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(
            f"{kind} needs {package}, which is not installed",
            where="sampler.kind",
            how="pip install 'crossmodal-search[samplers]'",
        )


def build_sampler(sampler: Sampler, progress: Sequence[int], always_drawn: Collection[str] = ()) -> BaseSampler:
    """Seeded by the campaign and its progress: with the same seed, a later session would repeat the first draws.

    A Sobol sequence goes on where the last session left it, so it keeps the campaign's own seed.

    Args:
        always_drawn: settings that every trial has. CMA-ES and the Sobol sequence propose no others, since a change of
            their dimensions would end the former for good, and start the latter anew.
    """
    digest = hashlib.sha256(json.dumps([sampler.seed, list(progress)]).encode()).digest()
    seed, startup = int.from_bytes(digest[:4], "big"), sampler.startup_trials
    tpe = TPESampler(seed=seed, n_startup_trials=startup)
    match sampler.kind:
        case "tpe":
            return tpe
        case "random":
            return RandomSampler(seed=seed)
        case "gp":
            return GPSampler(
                seed=seed, n_startup_trials=startup, independent_sampler=tpe, warn_independent_sampling=False
            )
        case "cmaes":
            cmaes = CmaEsSampler(
                seed=seed, n_startup_trials=startup, independent_sampler=tpe, warn_independent_sampling=False
            )
            return OfSettings(cmaes, always_drawn)
        case "qmc":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                qmc = QMCSampler(
                    scramble=True,
                    seed=sampler.seed,
                    independent_sampler=RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
            return OfSettings(qmc, always_drawn)


class OfSettings(BaseSampler):  # type: ignore[misc]
    """A sampler that proposes some settings together, and every other one by its independent sampler."""

    def __init__(self, sampler: BaseSampler, settings: Collection[str]) -> None:
        self._sampler = sampler
        self._settings = settings

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space = self._sampler.infer_relative_search_space(study, trial)
        return {name: distribution for name, distribution in space.items() if name in self._settings}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)  # type: ignore[no-any-return]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()
