"""Builds Optuna's sampler from the settings of a campaign."""

import hashlib
import json
from collections.abc import Sequence

from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from core.campaign.campaign import Sampler


def build_sampler(sampler: Sampler, progress: Sequence[int]) -> BaseSampler:
    """Seeded by the campaign and its progress: with the same seed, a later session would repeat the first draws."""
    digest = hashlib.sha256(json.dumps([sampler.seed, list(progress)]).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    match sampler.kind:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=sampler.startup_trials)
        case "random":
            return RandomSampler(seed=seed)
