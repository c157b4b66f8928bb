from typing import get_args

import optuna
import pytest

from core.campaign.campaign import Sampler
from search.study.strategy import build_sampler


def drawn(sampler: Sampler, progress: list[int]) -> list[float]:
    study = optuna.create_study(sampler=build_sampler(sampler, progress))
    return [study.ask().suggest_float("x", 0.0, 1.0) for _ in range(3)]


@pytest.mark.parametrize("kind", get_args(Sampler.model_fields["kind"].annotation))
def test_draws_follow_from_the_seed_and_the_progress(kind: str) -> None:
    sampler = Sampler.model_validate({"kind": kind, "seed": 3})
    assert drawn(sampler, [1, 0]) == drawn(sampler, [1, 0])
    assert drawn(sampler, [1, 0]) != drawn(sampler, [2, 0])
    assert drawn(sampler, [1, 0]) != drawn(Sampler.model_validate({"kind": kind, "seed": 4}), [1, 0])
