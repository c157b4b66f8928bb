import dataclasses

import pytest
import torch

from core.backbone.internvl import load_backbone
from core.config import TrainConfig
from core.features.inputs import read_inputs
from core.features.live import live_features
from core.features.opening import open_features
from core.features.store import Features
from core.training.train import train


@pytest.fixture(params=["standardize", "none"])
def config(request: pytest.FixtureRequest, demo_config: TrainConfig) -> TrainConfig:
    return demo_config.with_overrides(
        {
            "features.normalization": request.param,
            "features.image": "tower.cls+lm.image_mean",
            "model.image_pooling": "attention",
        }
    )


@pytest.fixture
def live(config: TrainConfig) -> Features:
    return live_features(read_inputs(config), load_backbone(config.features, config.device), config, with_test=True)


def test_live_rows_are_the_cached_rows(config: TrainConfig, live: Features) -> None:
    cached = open_features(config, with_test=True)
    assert live.fingerprint == cached.fingerprint
    for split in ("train", "validation", "test"):
        ours, stored = getattr(live, split), getattr(cached, split)
        rows = torch.tensor([3, 0, 3, 5])
        torch.testing.assert_close(ours.images[rows], stored.images[rows], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(ours.grid[rows], stored.grid[rows], atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(ours.texts[2:9], stored.texts[2:9], atol=1e-4, rtol=1e-3)
        for field in dataclasses.fields(ours):
            if field.name not in ("images", "texts", "grid"):
                assert torch.equal(getattr(ours, field.name), getattr(stored, field.name))


def test_live_training_gives_the_losses_of_cached_training(config: TrainConfig, live: Features) -> None:
    by_live = train(config, live).history
    by_cache = train(config, open_features(config)).history
    for ours, stored in zip(by_live, by_cache, strict=True):
        for name in ("loss_itc", "loss_itm", "loss_box", "loss_spatial"):
            assert getattr(ours, name) == pytest.approx(getattr(stored, name), rel=1e-3)


def test_the_configuration_decides(config: TrainConfig) -> None:
    features = open_features(config.with_overrides({"features.source": "live"}))
    assert not isinstance(features.train.images, torch.Tensor)
    assert features.test is None


def test_no_rows_are_no_work(live: Features) -> None:
    assert live.train.images[torch.empty(0, dtype=torch.int64)].shape == (0, 128 + 112)
