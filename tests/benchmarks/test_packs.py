"""Trials trained together learn what each learns alone."""

import pytest
import torch

from benchmarks.packs import Launches, Pack, measure
from core.config import TrainConfig
from core.features.store import Features
from core.training.train import train

DIFFERENT = [
    {"seed": 0, "optimizer.learning_rate": 0.01, "optimizer.weight_decay": 0.0, "loss.itm": 1.0},
    {"seed": 1, "optimizer.learning_rate": 0.003, "optimizer.weight_decay": 0.1, "loss.itm": 0.3},
    {"seed": 2, "optimizer.learning_rate": 0.001, "model.temperature": 0.2, "loss.box": 0.0, "loss.spatial": 2.0},
]


def test_a_trial_of_a_pack_learns_what_it_learns_alone(planted_features: Features, small_config: TrainConfig) -> None:
    shared = small_config.with_overrides({"recipe.epochs": 2, "model.dropout": 0.0})
    configs = [shared.with_overrides(overrides) for overrides in DIFFERENT]
    pack = Pack(configs, planted_features)
    for epoch in range(2):
        pack.train_epoch(epoch)
    for config, model in zip(configs, pack.models, strict=True):
        alone = train(config, planted_features).last.weights
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(weight, alone[name], rtol=1e-4, atol=1e-5)


def test_only_operations_that_compute_are_counted() -> None:
    square = torch.ones(2, 2)
    with Launches() as counted:
        (square.T[:1] @ square).view(2).mul_(2)
    assert counted.count == 2


def test_a_pack_is_compared_with_its_trials_alone() -> None:
    row = measure(2, 1024, 8)
    assert row["times as fast"] == pytest.approx(row["ms per step and trial"] / row["packed"])
    assert row["operations per step"] > 100
    assert row["of the pack"] < 2 * row["operations per step"]
