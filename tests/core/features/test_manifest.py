"""Tests of core.features.manifest; what is refused of a whole store is in test_features."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.features.manifest import checked_file, read_manifest, write_manifest


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A table of 8 MB and a small file."""
    folder = tmp_path / "f"
    (folder / "train").mkdir(parents=True)
    np.save(folder / "train" / "images_cls.npy", np.arange(2**21, dtype=np.float32).reshape(-1, 1024))
    (folder / "statistics.safetensors").write_bytes(b"content")
    write_manifest(folder, {"fingerprint": "f", "counts": {"train": {"images": 2048}}})
    return folder


def test_a_manifest_is_read_back_and_every_file_passes(store: Path) -> None:
    manifest = read_manifest(store, "f")
    assert manifest["counts"] == {"train": {"images": 2048}}
    for name in ("train/images_cls.npy", "statistics.safetensors"):
        assert checked_file(store, manifest, name) == store / name


def test_a_table_of_equal_shape_with_other_content_is_refused(store: Path) -> None:
    manifest = read_manifest(store, "f")
    np.save(store / "train" / "images_cls.npy", np.zeros((2048, 1024), dtype=np.float32))
    with pytest.raises(UserError, match="is not the file that was extracted"):
        checked_file(store, manifest, "train/images_cls.npy")


def test_a_file_that_the_manifest_does_not_name_is_refused(store: Path) -> None:
    (store / "train" / "texts_last.npy").write_bytes(b"new")
    with pytest.raises(UserError, match="is not the file that was extracted"):
        checked_file(store, read_manifest(store, "f"), "train/texts_last.npy")


def test_another_fingerprint_is_refused(store: Path) -> None:
    with pytest.raises(UserError, match="says fingerprint f instead of g"):
        read_manifest(store, "g")
