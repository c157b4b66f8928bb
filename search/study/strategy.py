"""Builds the sampler (Optuna's) and the pruner (our own) from the settings of a campaign."""

import hashlib
import json
from collections.abc import Sequence

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from core.campaign.campaign import Pruner, Sampler
from search.study.pruner import AshaPruner


def build_sampler(sampler: Sampler, progress: Sequence[int]) -> BaseSampler:
    """Seeded by the campaign and its progress: with the same seed, a later session would repeat the first draws."""
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
