from pathlib import Path

import pytest
import torch

from core.cli import prepare_features
from core.config import TrainConfig
from core.errors import UserError
from core.features import Features, FeatureStore, HostTable
from core.training import train


@pytest.fixture
def store(demo_config: TrainConfig) -> FeatureStore:
    return prepare_features(demo_config)


def test_the_test_split_is_opened_on_request_alone(store: FeatureStore) -> None:
    assert store.features(image_pooling="cls", text_pooling="last").test is None
    opened = store.features(image_pooling="cls", text_pooling="last", with_test=True).test
    assert opened is not None
    assert len(opened.images) == store.manifest["counts"]["test"]["images"]


def test_no_building_is_in_two_splits(store: FeatureStore) -> None:
    features = store.features(image_pooling="cls", text_pooling="last", with_test=True)
    assert features.test is not None
    groups = [set(split.groups.tolist()) for split in (features.train, features.validation, features.test)]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]


def test_first_token_pooling_is_refused_with_its_reason_and_let_through_when_asked(store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"features\.text_pooling: .*the first token sees nothing of the text"):
        store.features(image_pooling="cls", text_pooling="first")
    texts = store.features(image_pooling="cls", text_pooling="first", allow_degenerate=True).train.texts
    assert len(texts.round(decimals=3).unique(dim=0)) < len(texts) / 10  # one vector a first word


def test_statistics_are_those_of_the_training_split(store: FeatureStore) -> None:
    features = store.features(image_pooling="mean", text_pooling="mean")
    torch.testing.assert_close(features.statistics.image_mean, features.train.images.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        features.statistics.text_std, features.train.texts.std(0, correction=0), atol=1e-5, rtol=1e-4
    )


def test_another_fingerprint_is_refused(store: FeatureStore) -> None:
    root = store.folder.parent
    with pytest.raises(UserError, match="holds no features with fingerprint 0123"):
        FeatureStore.open(root, "0123")
    store.folder.rename(root / "0123")
    with pytest.raises(UserError, match=f"says fingerprint {store.fingerprint} instead of 0123"):
        FeatureStore.open(root, "0123")


@pytest.mark.parametrize("name", ["train/images_mean.npy", "train/index.safetensors", "statistics.safetensors"])
def test_a_torn_file_is_named(store: FeatureStore, name: str) -> None:
    path: Path = store.folder / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=f"{name.split('/')[-1]}: cannot be read as features"):
        store.features(image_pooling="mean", text_pooling="last")


@pytest.mark.parametrize("room", [0, 10_000])  # for no table, for the validation split's alone
def test_features_that_a_gpu_has_no_room_for_train_alike_from_the_host(
    planted_features: Features, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    expected = train(small_config, planted_features).last.weights
    monkeypatch.setattr("core.features.free_memory", lambda device: room)
    on_host = [
        isinstance(split.to(torch.device("cpu")).images, HostTable)
        for split in (planted_features.train, planted_features.validation)
    ]
    assert on_host == [True, room == 0]
    found = train(small_config, planted_features).last.weights
    assert all(torch.equal(found[name], weights) for name, weights in expected.items())
