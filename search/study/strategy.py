"""Builds Optuna's sampler from the settings of a campaign."""

import hashlib
import json
from collections.abc import Callable, Sequence

from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from core.campaign.campaign import Sampler

Violations = Callable[[FrozenTrial], Sequence[float]]


def build_sampler(sampler: Sampler, progress: Sequence[int], violations: Violations | None = None) -> BaseSampler:
    """Seeded by the campaign and its progress: with the same seed, a later session would repeat the first draws.

    Args:
        violations: of the campaign's constraints by an ended trial, positive where it breaks one.
    """
    digest = hashlib.sha256(json.dumps([sampler.seed, list(progress)]).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    match sampler.kind:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=sampler.startup_trials, constraints_func=violations)
        case "random":
            return RandomSampler(seed=seed)
