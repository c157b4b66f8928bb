"""Extraction by Ray tasks on a real cluster in this machine, with fake GPUs."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from ray.cluster_utils import Cluster

from core.backbone.internvl import load_backbone
from core.config import TrainConfig
from core.errors import UserError
from core.features.extraction import EncodeShards, Extraction, Shard, encode_here, extract_features
from core.features.inputs import read_inputs
from core.features.store import FeatureStore
from core.readings import Reading
from core.sections import dump_yaml
from search.cluster.extraction import encode_on_cluster
from tests.commands import hold, start, wait_until_held
from tests.conftest import EVERY_READING

pytestmark = pytest.mark.slow


@pytest.fixture
def gpu_config(demo_config: TrainConfig) -> TrainConfig:
    """Requests the GPUs that the nodes claim to have."""
    return demo_config.with_overrides({"device": "auto"})


def extract(
    config: TrainConfig, encode: EncodeShards, root: Path, shard: int, readings: Sequence[Reading] = EVERY_READING
) -> FeatureStore:
    return extract_features(Extraction(read_inputs(config), readings, shard), encode, root)


def tables(store: FeatureStore) -> dict[str, np.ndarray]:
    return {str(path.relative_to(store.folder)): np.load(path) for path in store.folder.rglob("*.npy")}


class Watched:
    """Encodes on the cluster, keeps the requested shards, and may lose a node meanwhile."""

    def __init__(self, config: TrainConfig, cluster: Cluster) -> None:
        self._encode = encode_on_cluster(config, cluster.address)
        self._cluster = cluster
        self.asked: list[str] = []
        self.lose_a_node = False

    def __call__(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        self.asked = [shard.file_name for shard in shards]
        for count, encoded in enumerate(self._encode(shards)):
            if count == 5 and self.lose_a_node:
                self._cluster.remove_node(next(iter(self._cluster.worker_nodes)), allow_graceful=False)
            yield encoded


def test_a_node_lost_on_the_way_changes_nothing(cluster: Cluster, gpu_config: TrainConfig, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1, num_gpus=1)
    watched = Watched(gpu_config, cluster)
    watched.lose_a_node = True
    there = extract(gpu_config, watched, tmp_path / "there", shard=4)
    here = extract(
        gpu_config, encode_here(load_backbone(gpu_config.features, gpu_config.device)), tmp_path / "here", shard=4
    )
    assert there.manifest == here.manifest
    expected = tables(here)
    assert tables(there).keys() == expected.keys()
    for name, table in tables(there).items():
        np.testing.assert_allclose(table, expected[name], atol=1e-5)


def test_a_killed_extraction_asks_only_for_what_is_missing(
    cluster: Cluster, gpu_config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "train.yaml").write_text(dump_yaml(gpu_config))
    store = gpu_config.features.store
    command = ["features", "extract", "--config", tmp_path / "train.yaml", "--address", cluster.address, "--shard", 4]
    with start(*command, cwd=tmp_path, command=hold("shard_", 40)) as process:
        wait_until_held(process)
        process.kill()
        process.communicate()
    kept = {path.name for path in store.glob(".*.partial/shard_*")}
    watched = Watched(gpu_config, cluster)
    finished = extract(gpu_config, watched, store, shard=4, readings=gpu_config.readings.all)  # as the command does
    assert len(kept) >= 10
    assert not kept & set(watched.asked)
    images = sum(counts["images"] for counts in finished.manifest["counts"].values())
    assert len({name for name in {*kept, *watched.asked} if "images" in name}) == math.ceil(images / 4)


def test_a_bad_image_is_reported_as_in_local_extraction(
    cluster: Cluster, gpu_config: TrainConfig, tmp_path: Path
) -> None:
    image = tmp_path / "torn.jpg"
    image.write_bytes(b"no image")
    encode = encode_on_cluster(gpu_config, cluster.address)
    with pytest.raises(UserError, match=r"torn\.jpg"):
        list(encode([Shard("images", 0, (image,), EVERY_READING[:1])]))
