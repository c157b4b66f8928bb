import io
import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from core.config import TrainConfig
from core.errors import UserError
from core.features.extraction import Extraction
from core.features.inputs import read_inputs
from core.features.opening import prepare_features
from core.features.store import Features, FeatureStore, HostTable, gather
from core.training.train import train
from tests.conftest import EVERY_READING, made_once, readings, stored_beside


@pytest.fixture(scope="session")
def extracted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one store, to be read only."""

    def make(root: Path) -> None:
        settings = {**stored_beside(demo), "features.store": str(root), "device": "cpu"}
        config = TrainConfig().with_overrides(settings)
        prepare_features(config, Extraction(read_inputs(config), EVERY_READING))

    (manifest,) = made_once(tmp_path_factory, "stores", make).glob("*/manifest.json")
    return manifest.parent


@pytest.fixture
def copied(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / extracted.name))


@pytest.fixture
def store(copied: Path) -> FeatureStore:
    return FeatureStore.open(copied.parent, copied.name)


def test_the_test_split_is_opened_on_request_alone(store: FeatureStore) -> None:
    assert store.features(readings("tower.cls", "lm.last")).test is None
    opened = store.features(readings("tower.cls", "lm.last"), with_test=True).test
    assert opened is not None
    assert len(opened.images) == store.manifest["counts"]["test"]["images"]


def test_no_building_is_in_two_splits(store: FeatureStore) -> None:
    features = store.features(readings("tower.cls", "lm.last"), with_test=True)
    assert features.test is not None
    groups = [set(split.groups.tolist()) for split in (features.train, features.validation, features.test)]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]


def test_first_token_pooling_is_refused_with_its_reason_and_let_through_when_asked(store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"features\.text: .*the first token sees nothing of the text"):
        store.features(readings("tower.cls", "lm.first"))
    texts = store.features(readings("tower.cls", "lm.first"), allow_degenerate=True).train.texts
    assert len(texts[:].round(decimals=3).unique(dim=0)) < len(texts) / 10  # one vector a first word


def test_statistics_are_those_of_the_training_split(store: FeatureStore) -> None:
    features = store.features(readings("tower.mean", "lm.mean"))
    torch.testing.assert_close(features.statistics.image_mean, features.train.images[:].mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        features.statistics.text_std, features.train.texts[:].std(0, correction=0), atol=1e-5, rtol=1e-4
    )


def test_another_fingerprint_is_refused(store: FeatureStore) -> None:
    root = store.folder.parent
    with pytest.raises(UserError, match="holds no features with fingerprint 0123"):
        FeatureStore.open(root, "0123")
    store.folder.rename(root / "0123")
    with pytest.raises(UserError, match=f"says fingerprint {store.fingerprint} instead of 0123"):
        FeatureStore.open(root, "0123")


@pytest.mark.parametrize(
    "name",
    [
        "readings/images.tower.mean/train.npy",
        "readings/texts.lm.last/statistics.safetensors",
        "train/index.safetensors",
    ],
)
def test_a_torn_file_is_named(store: FeatureStore, name: str) -> None:
    path: Path = store.folder / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=f"{name.split('/')[-1]}: cannot be read as features"):
        store.features(readings("tower.mean", "lm.last"))


def read(folder: Path) -> Features:
    return FeatureStore.open(folder.parent, folder.name).features(readings("tower.mean", "lm.last"))


def tensors(features: Features) -> list[torch.Tensor]:
    splits = [features.train, features.validation]
    parts = [*(getattr(split, field.name) for split in splits for field in fields(split))]
    statistics = [getattr(features.statistics, field.name) for field in fields(features.statistics)]
    return [tensor for tensor in (*parts, *statistics) if tensor is not None]


def require_refusal(folder: Path, name: str) -> None:
    store = folder.parents[1] if folder.parent.name == "readings" else folder
    with pytest.raises(UserError) as caught:
        read(store)
    assert str(caught.value).startswith(f"{folder / name}: ")
    assert str(caught.value).endswith(f"remove {folder} and extract again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", ["", "[]", "3", "null", "{", '{"fingerprint": 3}', "[" * 100_000, "\0"])
def test_a_manifest_of_another_type_is_refused(copied: Path, raw: str) -> None:
    (copied / "manifest.json").write_text(raw)
    require_refusal(copied, "manifest.json")


def test_a_manifest_that_is_missing_or_a_folder_is_refused(copied: Path) -> None:
    (copied / "manifest.json").unlink()
    require_refusal(copied, "manifest.json")
    (copied / "manifest.json").mkdir()
    require_refusal(copied, "manifest.json")


PLACES = st.lists(st.integers(0, 30), min_size=1, max_size=4)
WRONG: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PLACES, WRONG, st.booleans())
def test_a_manifest_that_is_changed_anywhere_is_refused_or_gives_the_same(
    extracted: Path, copied: Path, place: list[int], wrong: object, drop: bool
) -> None:
    manifest = json.loads((extracted / "manifest.json").read_text())
    before = json.dumps(manifest)
    target: Any = manifest
    for depth, step in enumerate(place, start=1):
        key = sorted(target)[step % len(target)]
        if depth == len(place) or not isinstance(target[key], dict) or not target[key]:
            break
        target = target[key]
    if drop:
        del target[key]
    else:
        target[key] = wrong
    (copied / "manifest.json").write_text(json.dumps(manifest))
    if json.dumps(manifest) == before:  # as text, since False == 0
        assert all(map(torch.equal, tensors(read(copied)), tensors(read(extracted))))
    else:
        require_refusal(copied, "manifest.json")


def saved(array: np.ndarray, *, fortran: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asfortranarray(array) if fortran else array, allow_pickle=True)
    return stream.getvalue()


def table(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path)
    return array


TABLES: dict[str, Callable[[Path], bytes]] = {
    "fewer rows": lambda path: saved(table(path)[:-1]),
    "no rows": lambda path: saved(table(path)[:0]),
    "more rows": lambda path: saved(np.vstack([table(path), table(path)])),
    "double precision": lambda path: saved(table(path).astype(np.float64)),
    "half precision": lambda path: saved(table(path).astype(np.float16)),
    "integers": lambda path: saved(table(path).view(np.int32)),
    "column order": lambda path: saved(table(path), fortran=True),
    "another byte order": lambda path: saved(table(path).astype(">f4")),
    "three dimensions": lambda path: saved(table(path)[:, :, None]),
    "flat": lambda path: saved(table(path).ravel()),
    "transposed": lambda path: saved(np.ascontiguousarray(table(path).T)),
    "objects": lambda path: saved(table(path).astype(object)),
    "a row of NaN": lambda path: saved(np.where(np.arange(len(table(path)))[:, None] == 3, np.nan, table(path))),
    "rows of another store": lambda path: saved(table(path)[::-1]),
    "of another reading": lambda path: next(
        other for other in path.parents[1].glob(f"{path.parent.name[:6]}*/{path.name}") if other != path
    ).read_bytes(),
    "an archive": lambda path: b"PK\x03\x04" + bytes(100),
    "nothing": lambda path: b"",
}


@pytest.mark.parametrize("name", ["images.tower.mean/train.npy", "texts.lm.last/validation.npy"])
@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES.keys())
def test_a_table_that_was_not_extracted_here_is_refused(copied: Path, name: str, make: Callable[[Path], bytes]) -> None:
    path = copied / "readings" / name
    path.write_bytes(make(path))
    require_refusal(path.parent, path.name)


def with_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(content)
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)

    return edit


INDICES: dict[str, Callable[[Path], object]] = {
    "out of range": with_tensors(lambda index: index["caption_text"].fill_(10**6)),
    "negative": with_tensors(lambda index: index["caption_image"].fill_(-3)),
    "name missing": with_tensors(lambda index: index.pop("boxes")),
    "name too many": with_tensors(lambda index: index.update(images=torch.zeros(3))),
    "another type": with_tensors(lambda index: index.update(groups=index["groups"].float())),
    "another shape": with_tensors(lambda index: index.update(boxes=index["boxes"][:, :3])),
    "fewer": with_tensors(lambda index: index.update(relations=index["relations"][1:])),
    "of another split": lambda path: shutil.copy(path.parent.parent / "validation" / path.name, path),
    "statistics": lambda path: shutil.copy(next(path.parents[1].glob("readings/*/statistics.safetensors")), path),
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "header too long": lambda path: path.write_bytes(b"\xff" * 100),
}


@pytest.mark.parametrize("damage", INDICES.values(), ids=INDICES.keys())
def test_an_index_that_was_not_extracted_here_is_refused(copied: Path, damage: Callable[[Path], object]) -> None:
    damage(copied / "train" / "index.safetensors")
    require_refusal(copied, "train/index.safetensors")


def test_statistics_of_another_store_are_refused(copied: Path) -> None:
    folder = copied / "readings" / "images.tower.mean"
    with_tensors(lambda statistics: statistics["std"].mul_(2))(folder / "statistics.safetensors")
    require_refusal(folder, "statistics.safetensors")


def test_several_readings_are_read_side_by_side(store: FeatureStore) -> None:
    joined = store.features(readings("tower.cls+lm.prompt", "lm.last+lm.mean", grid=4))
    alone = [store.features(readings(image)) for image in ("tower.cls", "lm.prompt")]
    rows = torch.tensor([4, 0, 4])
    expected = torch.cat([gather(each.train.images, rows) for each in alone], dim=1)
    assert torch.equal(gather(joined.train.images, rows), expected)
    assert torch.equal(joined.train.images[2:5], torch.cat([each.train.images[2:5] for each in alone], dim=1))
    assert (joined.vision_dim, joined.text_dim, joined.grid_dim) == (128 + 112, 2 * 112, 128)
    assert torch.equal(joined.statistics.image_mean[:128], alone[0].statistics.image_mean)
    grid = joined.train.grid
    assert grid is not None
    assert (tuple(grid.shape), grid[0:1].dtype) == ((len(joined.train.images), 16, 128), torch.float16)
    cells = torch.as_tensor(grid[0 : len(grid)]).double().flatten(0, 1)
    torch.testing.assert_close(joined.statistics.grid_mean, cells.mean(0).float(), atol=1e-4, rtol=1e-3)


def test_a_reading_that_the_store_lacks_is_named(store: FeatureStore) -> None:
    with pytest.raises(UserError, match=r"does not hold tower.cls@2; run crossmodal features extract"):
        store.features(readings("tower.cls@2"))


@pytest.mark.parametrize("room", [0, 10_000])  # for no table, for the validation split's alone
def test_features_that_a_gpu_has_no_room_for_train_alike_from_the_host(
    planted_features: Features, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    expected = train(small_config, planted_features).last.weights
    monkeypatch.setattr("core.features.store.free_memory", lambda device: room)
    on_host = [
        isinstance(split.to(torch.device("cpu")).images, HostTable)
        for split in (planted_features.train, planted_features.validation)
    ]
    assert on_host == [True, room == 0]
    found = train(small_config, planted_features).last.weights
    assert all(torch.equal(found[name], weights) for name, weights in expected.items())
