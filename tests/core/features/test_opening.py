import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from core.backbone.internvl import load_backbone
from core.config import TrainConfig
from core.errors import UserError
from core.features.extraction import Shard, encode_here
from core.features.inputs import read_inputs
from core.features.opening import prepare_features


def test_what_was_replaced_meanwhile_is_refused(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    shutil.copytree(demo / "images", tmp_path / "images")
    config = demo_config.with_overrides({"data.image_root": str(tmp_path / "images")})
    encode = encode_here(load_backbone(config.features, config.device))

    def meanwhile(shards: Sequence[Shard]) -> Iterator[tuple[Shard, bytes]]:
        yield from encode(shards)
        shutil.copy(tmp_path / "images/train/0003/image-01.jpeg", tmp_path / "images/train/0003/image-00.jpeg")

    with pytest.raises(UserError, match="changed while features were extracted; run the same command again"):
        prepare_features(config, encode=meanwhile)
    assert not list(config.features.store.glob("*/manifest.json"))
    assert prepare_features(config).fingerprint == read_inputs(config).parts.fingerprint


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o077, 0o700, 0o600), (0o002, 0o775, 0o664)])
def test_a_store_and_all_beside_it_follow_the_umask(
    demo_config: TrainConfig, umask: int, folder: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        prepare_features(demo_config)
    finally:
        os.umask(before)
    root = demo_config.features.store
    assert {".digests", ".digests.lock"} < {path.name for path in root.iterdir()}
    for path in root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path
