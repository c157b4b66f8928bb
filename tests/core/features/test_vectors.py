import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.errors import UserError
from core.features.inputs import read_inputs
from core.features.opening import open_features, prepare_features
from core.features.vectors import MANIFEST, open_vectors, read_vector_set
from core.sections import Scalar
from tests.vector_files import annotated, imported, without_pictures


def test_vectors_are_found_under_the_names_in_the_annotations(
    demo: Path, demo_config: TrainConfig, tmp_path: Path
) -> None:
    folder = imported(demo, tmp_path)
    named, located = read_vector_set(folder), read_vector_set(folder, demo / "images")
    (reading,) = demo_config.with_overrides(
        {"features.vectors": str(folder), "features.image": "vectors.cnn"}
    ).features.image_readings
    paths = [image.path for image in annotated(demo)]
    found = named.rows(reading, paths)
    assert (found == located.rows(reading, [demo / "images" / path for path in paths])).all()
    assert found.shape == (len(paths), 16)
    assert named.readings("images") == {"cnn": 16, "clip": 8}
    with pytest.raises(UserError, match=r"lacks vectors of 1 of 2 images: other\.jpg; it names, for example, train/"):
        named.require_rows("images", [paths[0], Path("other.jpg")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.image": "vectors.dino"}, r"set: holds no vectors\.dino of images; there are vectors\.cnn, vec"),
        ({"features.text": "vectors.cnn"}, r"holds no vectors\.cnn of texts; there are vectors\.clip; correct featu"),
        ({"features.vectors": "/absent"}, r"/absent: holds no vectors; set features\.vectors to a folder that cros"),
    ],
)  # fmt: skip
def test_a_reading_that_is_not_there_is_one_line(
    demo: Path, demo_config: TrainConfig, tmp_path: Path, change: dict[str, Scalar], message: str
) -> None:
    config = without_pictures(demo, tmp_path / "data", demo_config)
    with pytest.raises(UserError, match=message):
        read_inputs(config.with_overrides(change))


def torn_names(folder: Path) -> Path:
    (path,) = folder.glob("images.*.json")
    path.write_text("[")
    return path


def torn_table(folder: Path) -> Path:
    (path,) = folder.glob("images.cnn.*.npy")
    path.write_bytes(path.read_bytes()[:200])
    return path


def edited_manifest(folder: Path) -> Path:
    content = json.loads((folder / MANIFEST).read_text())
    content["images"]["readings"]["cnn"]["width"] = 3
    (folder / MANIFEST).write_text(json.dumps(content))
    return folder / MANIFEST


def absent_table(folder: Path) -> Path:
    (path,) = folder.glob("texts.clip.*.npy")
    path.unlink()
    return path


@pytest.mark.parametrize("damage", [torn_names, torn_table, edited_manifest, absent_table])
def test_a_damaged_set_is_one_line(
    demo: Path, demo_config: TrainConfig, tmp_path: Path, damage: Callable[[Path], Path]
) -> None:
    config = without_pictures(demo, tmp_path / "data", demo_config)
    path = damage(tmp_path / "data" / "set")
    with pytest.raises(UserError, match=rf"{path.name}: cannot be read as vectors .*import again"):
        open_features(config)
    assert not list(config.features.store.glob("*/manifest.json"))


def test_the_fingerprint_covers_the_content_and_the_names(demo: Path, demo_config: TrainConfig, tmp_path: Path) -> None:
    config = without_pictures(demo, tmp_path / "a", demo_config)
    first = read_inputs(config).parts
    assert open_vectors(config) is not None
    assert read_inputs(without_pictures(demo, tmp_path / "b", demo_config)).parts == first
    imported(demo, tmp_path / "a", seed=1)
    assert read_inputs(config).parts.fingerprint != first.fingerprint
    imported(demo, tmp_path / "a")
    assert read_inputs(config).parts == first
    path = tmp_path / "a" / "test.json"
    records = json.loads(path.read_text())
    for record, other in zip(records[:2], reversed(records[:2]), strict=True):
        record["image"], other["image"] = other["image"], record["image"]
        break
    path.write_text(json.dumps(records))
    assert read_inputs(config).parts.vectors != first.vectors


def test_without_vectors_nothing_of_a_fingerprint_changes(demo_config: TrainConfig) -> None:
    parts = read_inputs(demo_config).parts
    assert "vectors" not in parts.to_json()
    assert prepare_features(demo_config).manifest["parts"] == parts.to_json()
