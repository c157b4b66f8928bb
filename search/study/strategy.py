"""How a campaign proposes trials and when it gives one up: Optuna's sampler and our pruner, built from its settings."""

import hashlib
import json
from collections.abc import Sequence

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from core.campaign.campaign import Pruner, Sampler
from search.study.pruner import AshaPruner


def build_sampler(sampler: Sampler, progress: Sequence[int]) -> BaseSampler:
    """Seeded by the campaign and its progress: the same seed again would repeat the first draws."""
    digest = hashlib.sha256(json.dumps([sampler.seed, list(progress)]).encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    match sampler.kind:
        case "tpe":
            return TPESampler(seed=seed, n_startup_trials=sampler.startup_trials)
        case "random":
            return RandomSampler(seed=seed)


def build_pruner(pruner: Pruner) -> BasePruner:
    match pruner.kind:
        case "asha":
            return AshaPruner(
                min_epochs=pruner.min_epochs,
                reduction_factor=pruner.reduction_factor,
                bootstrap=pruner.bootstrap,
            )
        case "none":
            return NopPruner()
