from typing import get_args

import optuna
import pytest

from core.campaign.campaign import Pruner, Sampler
from search.study.strategy import build_pruner, build_sampler


def drawn(sampler: Sampler, progress: list[int]) -> list[float]:
    study = optuna.create_study(sampler=build_sampler(sampler, progress))
    return [study.ask().suggest_float("x", 0.0, 1.0) for _ in range(3)]


@pytest.mark.parametrize("kind", get_args(Sampler.model_fields["kind"].annotation))
def test_draws_follow_from_the_seed_and_the_progress(kind: str) -> None:
    sampler = Sampler.model_validate({"kind": kind, "seed": 3})
    assert drawn(sampler, [1, 0]) == drawn(sampler, [1, 0])
    assert drawn(sampler, [1, 0]) != drawn(sampler, [2, 0])
    assert drawn(sampler, [1, 0]) != drawn(Sampler.model_validate({"kind": kind, "seed": 4}), [1, 0])


@pytest.mark.parametrize(("kind", "given_up"), [("asha", True), ("none", False)])
def test_the_worse_of_two_trials_is_stopped_if_the_campaign_prunes(kind: str, given_up: bool) -> None:
    pruner = Pruner.model_validate({"kind": kind, "bootstrap": 1, "reduction_factor": 2})
    study = optuna.create_study(direction="maximize", pruner=build_pruner(pruner))
    for value, expected in ((0.9, False), (0.1, given_up)):
        trial = study.ask()
        trial.report(value, step=1)
        assert trial.should_prune() == expected


def test_every_kind_of_pruner_is_built() -> None:
    assert set(get_args(Pruner.model_fields["kind"].annotation)) == {"asha", "none"}
