from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.backbone import FrozenBackbone, load_backbone
from core.config import TrainConfig
from core.errors import UserError
from core.extraction import encode_here, extract_features
from core.features import FeatureStore
from core.fingerprint import FeaturePlan, plan_features
from core.images import open_image


@pytest.fixture
def plan(demo_config: TrainConfig) -> FeaturePlan:
    return plan_features(demo_config)


@pytest.fixture
def backbone(demo_config: TrainConfig) -> FrozenBackbone:
    return load_backbone(demo_config.features)


class Interrupt:
    """Stops an extraction after so many progress reports, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, kind: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def extract(plan: FeaturePlan, backbone: FrozenBackbone, root: Path, **options: Callable[..., None]) -> FeatureStore:
    return extract_features(plan.records, encode_here(backbone), root, parts=plan.parts, shard=8, **options)  # type: ignore[arg-type]


def test_every_row_is_the_backbones_own_vector(plan: FeaturePlan, backbone: FrozenBackbone, tmp_path: Path) -> None:
    store = extract(plan, backbone, tmp_path)
    features = store.features(image_pooling="mean", text_pooling="last", with_test=True)
    for split, name in ((features.train, "train"), (features.validation, "validation"), (features.test, "test")):
        assert split is not None
        records = plan.records[name]  # type: ignore[index]
        assert len(split.images) == len(records)
        picture = backbone.encode_images([open_image(records[2].image)[0]])["mean"][0]
        torch.testing.assert_close(split.images[2], picture, atol=1e-4, rtol=1e-3)
        row = int((split.caption_image == 2).nonzero()[0])
        caption = backbone.encode_texts([records[2].captions[0]])["last"][0]
        torch.testing.assert_close(split.texts[split.caption_text[row]], caption, atol=1e-4, rtol=1e-3)
        assert sum(len(record.captions) for record in records) == len(split.caption_text)
        assert sum(len(record.regions) for record in records) == len(split.boxes)


def test_equal_texts_are_encoded_once(plan: FeaturePlan, backbone: FrozenBackbone, tmp_path: Path) -> None:
    seen: list[str] = []
    encode = backbone.encode_texts

    def spy(texts: list[str]) -> object:
        seen.extend(texts)
        return encode(texts)

    backbone.encode_texts = spy  # type: ignore[method-assign,assignment]
    extract(plan, backbone, tmp_path)
    texts = [
        text
        for records in plan.records.values()
        for record in records
        for text in (*record.captions, *(region.sentence for region in record.regions))
    ]
    assert len(seen) == len(set(seen)) == len(set(texts)) < len(texts)


def test_an_interrupted_extraction_goes_on_after_its_last_whole_shard(
    plan: FeaturePlan, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(plan, backbone, tmp_path / "a", on_progress=Interrupt(after=5))
    assert not FeatureStore.exists(tmp_path / "a", plan.parts.fingerprint)
    shards = sorted((tmp_path / "a").glob(".*.partial/shard_*"))
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[0].write_bytes(shards[0].read_bytes()[:100])  # torn by a full disk
    whole_then = {path: path.stat().st_mtime_ns for path in shards[1:]}
    assert len(shards) == 3

    def check(kind: str, done: int, total: int) -> None:
        if kind == "images" and done == 24:
            assert {path: path.stat().st_mtime_ns for path in shards[1:]} == whole_then
            assert shards[0].stat().st_mtime_ns > times[shards[0]]

    continued = extract(plan, backbone, tmp_path / "a", on_progress=check)
    fresh = extract(plan, backbone, tmp_path / "b")
    for name in ("train/images_mean.npy", "train/texts_last.npy", "test/texts_mean.npy"):
        np.testing.assert_allclose(np.load(continued.folder / name), np.load(fresh.folder / name), atol=1e-5)
    assert not list((tmp_path / "a").glob(".*.partial"))


def test_a_second_extraction_of_the_same_fingerprint_encodes_nothing(
    plan: FeaturePlan, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    extract(plan, backbone, tmp_path)
    backbone.encode_pixels = backbone.encode_texts = None  # type: ignore[method-assign,assignment]
    assert extract(plan, backbone, tmp_path).fingerprint == plan.parts.fingerprint


def test_health_tells_the_first_token_apart_and_it_is_refused(
    plan: FeaturePlan, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    store = extract(plan, backbone, tmp_path)
    health = store.manifest["health"]["texts"]
    assert health["first"]["distinct"] < 0.2
    assert health["last"]["distinct"] > 0.9
    with pytest.raises(UserError, match=r"features\.text_pooling: .*first token sees nothing.*allow_degenerate"):
        store.features(image_pooling="mean", text_pooling="first")
    assert store.features(image_pooling="mean", text_pooling="first", allow_degenerate=True)


def test_the_test_split_is_not_opened_unless_asked(plan: FeaturePlan, backbone: FrozenBackbone, tmp_path: Path) -> None:
    store = extract(plan, backbone, tmp_path)
    for path in (store.folder / "test").iterdir():
        path.unlink()  # any attempt to read it would now fail
    assert store.features(image_pooling="cls", text_pooling="mean").test is None
    with pytest.raises(UserError, match="cannot be read as features"):
        store.features(image_pooling="cls", text_pooling="mean", with_test=True)
