import dataclasses

import pytest
import torch

from core.config import TrainConfig
from core.features.store import Features
from core.model.model import build_model
from core.training.stages import begin_stage, stages_of
from core.training.train import train


def test_a_zero_stage1_is_single_stage_and_ignores_the_stage2_scale(small_config: TrainConfig) -> None:
    (stage,) = stages_of(small_config.with_overrides({"recipe.stage2_lr_scale": 0.1}))
    assert (stage.number, stage.epochs, stage.learning_rate) == (2, 4, 0.01)


def test_a_stage_has_the_epochs_that_a_run_has_not_done_yet(
    planted_features: Features, small_config: TrainConfig
) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 2})
    first, second = stages_of(config)
    last = train(config, planted_features).last
    reached = dataclasses.replace(last, epoch=2)
    assert [list(stage.epochs_after(None)) for stage in (first, second)] == [[0, 1], [2, 3]]
    assert [list(stage.epochs_after(reached)) for stage in (first, second)] == [[], [3]]


@pytest.mark.parametrize(("number", "with_regions"), [(1, False), (2, True)])
def test_only_the_joint_stage_learns_from_regions(
    planted_features: Features, small_config: TrainConfig, number: int, with_regions: bool
) -> None:
    config = small_config.with_overrides({"recipe.stage1_epochs": 2, "recipe.stage2_lr_scale": 0.5})
    model = build_model(config, planted_features)
    stage = stages_of(config)[number - 1]
    run = begin_stage(config, planted_features, model, stage, None)
    assert run.with_regions is with_regions
    assert not run.optimizer.state
    peak = max(run.learning_rate(stage.first_epoch, step) for step in range(2 * run.steps_per_epoch))
    assert peak == pytest.approx(stage.learning_rate)


def test_every_epoch_of_every_stage_has_a_seed_of_its_own(
    planted_features: Features, small_config: TrainConfig
) -> None:
    seeds = []
    for seed in (0, 1, 2**32 - 1):
        config = small_config.with_overrides({"recipe.stage1_epochs": 2, "seed": seed})
        model = build_model(config, planted_features)
        for stage in stages_of(config):
            run = begin_stage(config, planted_features, model, stage, None)
            seeds += [run.seed_of(epoch) for epoch in stage.epochs_after(None)]
    assert len(set(seeds)) == len(seeds)
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() == max(seeds)
