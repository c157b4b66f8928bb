import os
import shutil
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.errors import UserError
from core.fingerprint import checkpoint_folder, files_digest, plan_features


def test_it_stays_the_same_for_what_features_do_not_depend_on(demo_config: TrainConfig) -> None:
    changed = demo_config.with_overrides({"model.adapter_width": 8, "seed": 5, "features.text_pooling": "mean"})
    assert plan_features(changed).parts == plan_features(demo_config).parts


@pytest.mark.parametrize(
    "change",
    [
        {"features.max_tokens": 16},
        {"features.image_size": 56},
        {"features.dtype": "bfloat16"},
        {"data.split_seed": 1},
    ],
)
def test_it_changes_with_what_features_depend_on(demo_config: TrainConfig, change: dict[str, object]) -> None:
    changed = demo_config.with_overrides(change)  # type: ignore[arg-type]
    assert plan_features(changed).parts.fingerprint != plan_features(demo_config).parts.fingerprint


@pytest.mark.parametrize("victim", ["tiny-internvl/model.safetensors", "tiny-internvl/tokenizer.json", "picture"])
def test_a_changed_byte_of_weights_tokenizer_or_picture_changes_it(
    demo: Path, demo_config: TrainConfig, tmp_path: Path, victim: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo, copy)
    moved = demo_config.with_overrides(
        {
            "data.train_annotations": str(copy / "train.json"),
            "data.test_annotations": str(copy / "test.json"),
            "data.image_root": str(copy / "images"),
            "features.backbone": str(copy / "tiny-internvl"),
        }
    )
    before = plan_features(moved).parts.fingerprint
    assert before == plan_features(demo_config).parts.fingerprint, "where the files lie does not matter"
    path = next((copy / "images").rglob("*.jpeg")) if victim == "picture" else copy / victim
    path.write_bytes(path.read_bytes() + b" ")
    assert plan_features(moved).parts.fingerprint != before


def test_a_digest_is_remembered_until_a_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    first = files_digest([path], tmp_path / "digests")
    stat = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert files_digest([path], tmp_path / "digests") == first, "same size and time: not read again"
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert files_digest([path], tmp_path / "digests") != first


def test_a_missing_backbone_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such backbone folder"):
        checkpoint_folder(str(tmp_path / "nowhere"))
