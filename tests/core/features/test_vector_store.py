from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from core.config import TrainConfig
from core.errors import UserError
from core.features.extraction import Shard
from core.features.inputs import read_inputs
from core.features.opening import open_features, prepare_features
from core.features.store import FeatureStore
from core.features.vectors import read_vector_set
from core.training.train import train
from tests.vector_files import imported, without_pictures


def refuse(shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
    raise AssertionError("the backbone runs")


def test_vectors_alone_are_copied_and_trained_on(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    config = without_pictures(demo, tmp_path / "data", demo_config)
    features = open_features(config, with_test=True)
    assert (features.vision_dim, features.text_dim, features.backbone_parameters) == (24, 8, 0)
    vectors = read_vector_set(tmp_path / "data" / "set")
    inputs = read_inputs(config)
    cnn, clip = config.features.image_readings
    for split, table in (("train", features.train.images), ("test", features.test.images if features.test else None)):
        paths = [image.path for image in inputs.images[split]]  # type: ignore[index]
        wanted = torch.cat([torch.from_numpy(vectors.rows(each, paths)) for each in (cnn, clip)], dim=1)
        assert table is not None
        assert torch.equal(table[:], wanted)
    history = train(config.with_overrides({"recipe.epochs": 4, "optimizer.learning_rate": 0.01}), features).history
    assert history[-1].loss < history[0].loss


def test_beside_the_backbone_and_other_vectors_cost_no_second_pass(
    demo: Path, demo_config: TrainConfig, tmp_path: Path
) -> None:
    config = demo_config.with_overrides(
        {"features.vectors": str(imported(demo, tmp_path)), "features.image": "tower.mean+vectors.cnn"}
    )
    alone = prepare_features(demo_config)
    store = prepare_features(config, encode=refuse)
    tower, _ = config.features.image_readings
    table = f"readings/{tower.key}/train.npy"
    assert (store.folder / table).samefile(alone.folder / table)
    assert store.describe(tower) | {"fingerprint": ""} == alone.describe(tower) | {"fingerprint": ""}
    features = open_features(config)
    assert torch.equal(features.train.images[:][:, :-16], open_features(demo_config).train.images[:])
    imported(demo, tmp_path, seed=1)
    again = prepare_features(config, encode=refuse)
    assert again.fingerprint not in (store.fingerprint, alone.fingerprint)
    assert FeatureStore.open(config.features.store, store.fingerprint).missing(config.readings.all) == []


def test_vectors_that_are_missing_are_named_before_the_backbone_runs(
    demo: Path, moved: TrainConfig, copy: Path, tmp_path: Path
) -> None:
    path = copy / "train.json"
    path.write_text(path.read_text().replace('"caption": "', '"caption": "Well, ', 1))
    config = moved.with_overrides({"features.vectors": str(imported(demo, tmp_path)), "features.text": "vectors.clip"})
    with pytest.raises(UserError, match=r"set: lacks vectors of 1 of \d+ texts: Well, .*encode them, too"):
        prepare_features(config, encode=refuse)
    assert not list(config.features.store.glob("*/manifest.json"))
