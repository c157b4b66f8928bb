"""Builds Optuna's sampler from the settings of a campaign."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Collection, Sequence

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

from core.campaign.campaign import Sampler, SamplerKind
from core.errors import UserError
from search.study.evolution import EvolutionSampler

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
        always_drawn: settings that every trial has, to which CMA-ES is limited.
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
            return EvolutionSampler(seed=seed, startup_trials=startup, settings=always_drawn, others=tpe)
        case "qmc":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return QMCSampler(
                    scramble=True,
                    seed=sampler.seed,
                    independent_sampler=RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )
