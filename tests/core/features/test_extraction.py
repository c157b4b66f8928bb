import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.backbone.internvl import FrozenBackbone, load_backbone
from core.config import TrainConfig
from core.data.images import open_image
from core.data.splits import Split
from core.errors import UserError
from core.features import extraction, tables
from core.features.extraction import (
    Extraction,
    OnProgress,
    Shard,
    _digest_of,
    encode_here,
    encode_shard,
    extract_features,
)
from core.features.inputs import FeatureInputs, read_inputs
from core.features.store import FeatureSplit, FeatureStore
from core.readings import Reading
from tests.conftest import EVERY_READING, readings

CLS, MEAN = readings("tower.cls+tower.mean").images
(LAST,) = readings().texts


@pytest.fixture
def inputs(demo_config: TrainConfig) -> FeatureInputs:
    return read_inputs(demo_config)


@pytest.fixture
def backbone(demo_config: TrainConfig) -> FrozenBackbone:
    return load_backbone(demo_config.features, demo_config.device)


class Interrupt:
    """Interrupts an extraction after a number of progress reports, as Ctrl-C would."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, kind: str, done: int, total: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def extract(
    inputs: FeatureInputs,
    backbone: FrozenBackbone,
    root: Path,
    on_progress: OnProgress = lambda kind, done, total: None,
) -> FeatureStore:
    return extract_features(Extraction(inputs, EVERY_READING, shard=8), encode_here(backbone), root, on_progress)


def test_every_row_is_the_backbones_own_vector(inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path) -> None:
    store = extract(inputs, backbone, tmp_path)
    features = store.features(readings("tower.mean", "lm.last"), with_test=True)
    splits: dict[Split, FeatureSplit | None]
    splits = {"train": features.train, "validation": features.validation, "test": features.test}
    for name, split in splits.items():
        assert split is not None
        records = inputs.images[name]
        assert len(split.images) == len(records)
        image = backbone.encode_images([open_image(records[2].path)[0]], [MEAN])[MEAN][0]
        torch.testing.assert_close(split.images[:][2], image, atol=1e-4, rtol=1e-3)
        row = int((split.caption_image == 2).nonzero()[0])
        caption = backbone.encode_texts([records[2].captions[0]], [LAST])[LAST][0]
        torch.testing.assert_close(split.texts[split.caption_text[row : row + 1]][0], caption, atol=1e-4, rtol=1e-3)
        assert sum(len(record.captions) for record in records) == len(split.caption_text)
        assert sum(len(record.regions) for record in records) == len(split.boxes)


def test_equal_texts_are_encoded_once(inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path) -> None:
    seen: list[str] = []
    encode = backbone.encode_texts

    def spy(texts: list[str], asked: Sequence[Reading]) -> object:
        if len(asked) > 1:  # one at a time, operations are counted
            seen.extend(texts)
        return encode(texts, asked)

    backbone.encode_texts = spy  # type: ignore[method-assign,assignment]
    extract(inputs, backbone, tmp_path)
    texts = [
        text
        for records in inputs.images.values()
        for record in records
        for text in (*record.captions, *(region.sentence for region in record.regions))
    ]
    assert len(seen) == len(set(seen)) == len(set(texts)) < len(texts)


def test_an_interrupted_extraction_continues_after_its_last_complete_shard(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(inputs, backbone, tmp_path / "a", on_progress=Interrupt(after=5))
    assert not FeatureStore.exists(tmp_path / "a", inputs.parts.fingerprint)
    shards = sorted((tmp_path / "a").glob(".*.partial/shard_*"))
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[0].write_bytes(shards[0].read_bytes()[:100])  # torn by a full disk
    whole_then = {path: path.stat().st_mtime_ns for path in shards[1:]}
    assert len(shards) == 3

    def check(kind: str, done: int, total: int) -> None:
        if kind == "images" and done == 24:
            assert {path: path.stat().st_mtime_ns for path in shards[1:]} == whole_then
            assert shards[0].stat().st_mtime_ns > times[shards[0]]

    continued = extract(inputs, backbone, tmp_path / "a", on_progress=check)
    fresh = extract(inputs, backbone, tmp_path / "b")
    for name in (
        "readings/images.tower.mean/train.npy",
        "readings/texts.lm.last/train.npy",
        "readings/texts.lm.mean/test.npy",
    ):
        np.testing.assert_allclose(np.load(continued.folder / name), np.load(fresh.folder / name), atol=1e-5)
    assert not list((tmp_path / "a").glob(".*.partial"))


def test_a_reading_added_later_is_computed_alone_and_bit_equal_to_asking_at_once(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    at_once = extract(inputs, backbone, tmp_path / "once")
    seen: list[tuple[Reading, ...]] = []

    def spy(shards: Sequence[Shard]) -> Iterable[tuple[Shard, bytes]]:
        seen.extend(shard.readings for shard in shards)
        return encode_here(backbone)(shards)

    for count in range(1, len(EVERY_READING) + 1):
        grown = extract_features(Extraction(inputs, EVERY_READING[:count], shard=8), spy, tmp_path / "grown")
    assert dict.fromkeys(seen) == dict.fromkeys((reading,) for reading in EVERY_READING)
    for reading in EVERY_READING:
        tables = sorted((at_once.folder / "readings" / reading.key).glob("*.*"))
        assert len(tables) == 5
        for path in tables:
            assert (grown.folder / path.relative_to(at_once.folder)).read_bytes() == path.read_bytes(), path


def test_an_extraction_that_died_while_writing_its_tables_is_continued(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then all shards are there, and of a few readings also some tables."""
    write, calls = tables.write_reading, iter(range(3))

    def dying(*arguments: Any) -> None:
        write(*arguments)
        if next(calls) == 2:
            (arguments[0] / "train.npy").write_bytes(b"torn")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(extraction, "write_reading", dying)
        with pytest.raises(KeyboardInterrupt):
            extract(inputs, backbone, tmp_path)
    assert not FeatureStore.exists(tmp_path, inputs.parts.fingerprint)
    assert extract(inputs, backbone, tmp_path).missing(EVERY_READING) == []
    assert not list(tmp_path.glob(".*.partial"))


def test_an_interrupted_growth_leaves_the_store_as_it_was_and_goes_on(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    encode = encode_here(backbone)
    first = extract_features(Extraction(inputs, EVERY_READING[:1], shard=8), encode, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        extract(inputs, backbone, tmp_path, on_progress=Interrupt(after=5))
    assert [reading for reading in EVERY_READING if not first.missing([reading])] == [EVERY_READING[0]]
    assert extract(inputs, backbone, tmp_path).missing(EVERY_READING) == []


def test_a_second_extraction_of_the_same_fingerprint_encodes_nothing(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    extract(inputs, backbone, tmp_path)
    backbone.encode_pixels = backbone.encode_texts = None  # type: ignore[method-assign,assignment]
    assert extract(inputs, backbone, tmp_path).fingerprint == inputs.parts.fingerprint


def test_health_identifies_the_first_token_and_it_is_refused(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    store = extract(inputs, backbone, tmp_path)
    health = {reading.name: store.describe(reading)["health"] for reading in EVERY_READING}
    assert health["lm.first"]["distinct"] < 0.2
    assert health["lm.last"]["distinct"] > 0.9
    with pytest.raises(UserError, match=r"features\.text: .*first token sees nothing.*allow_degenerate"):
        store.features(readings("tower.mean", "lm.first"))
    assert store.features(readings("tower.mean", "lm.first"), allow_degenerate=True)


def test_the_test_split_is_not_opened_unless_asked(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    store = extract(inputs, backbone, tmp_path)
    for path in (*(store.folder / "test").iterdir(), *store.folder.glob("readings/*/test.npy")):
        path.unlink()  # any attempt to read it would now fail
    assert store.features(readings("tower.cls", "lm.mean")).test is None
    with pytest.raises(UserError, match="cannot be read as features"):
        store.features(readings("tower.cls", "lm.mean"), with_test=True)


def test_nothing_else_in_the_folder_of_stores_is_touched(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    root = tmp_path / "stuff"
    root.mkdir()
    names = ("thesis.tex", "shard_images_0.safetensors", "identity.json", ".x.partial")
    for name in names:
        (root / name).write_text("mine")
    extract(inputs, backbone, root)
    assert [(root / name).read_text() for name in names] == ["mine"] * 4
    made = {path.name for path in root.iterdir()} - set(names)
    assert made == {inputs.parts.fingerprint, f".{inputs.parts.fingerprint}.lock"}


@pytest.mark.parametrize("name", ["{}", ".{}-{}.partial"])
def test_a_foreign_folder_or_file_with_a_name_of_ours_is_refused(
    inputs: FeatureInputs, tmp_path: Path, name: str
) -> None:
    named = name.format(inputs.parts.fingerprint, _digest_of(EVERY_READING))
    (tmp_path / "a" / named).mkdir(parents=True)
    (tmp_path / "a" / named / "thesis.tex").write_text("mine")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / named).write_text("mine")
    for root, theirs in (("a", f"{named}/thesis.tex"), ("b", named)):
        with pytest.raises(UserError, match=inputs.parts.fingerprint):
            extract_features(Extraction(inputs, EVERY_READING), lambda shards: [], tmp_path / root)
        assert (tmp_path / root / theirs).read_text() == "mine"
        assert len([path for path in (tmp_path / root).rglob("*") if path.suffix != ".lock"]) == 1 + (root == "a")


def interrupted(inputs: FeatureInputs, backbone: FrozenBackbone, root: Path) -> list[Path]:
    with pytest.raises(KeyboardInterrupt):
        extract(inputs, backbone, root, on_progress=Interrupt(after=5))
    return sorted(root.glob(".*.partial/shard_*"))


def held(path: Path) -> dict[str, torch.Tensor]:
    """In memory, not mapped: the file is about to be overwritten."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def resaved(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    """The same file, metadata included, with other tensors."""

    def edit(path: Path) -> None:
        with safe_open(path, framework="pt") as content:
            told = content.metadata()
        save_file({name: tensor.contiguous() for name, tensor in change(held(path)).items()}, path, metadata=told)

    return edit


FOREIGN: dict[str, Callable[[Path], object]] = {
    "another width": resaved(lambda tensors: {name: tensor[:, :7] for name, tensor in tensors.items()}),
    "another type": resaved(lambda tensors: {name: tensor.half() for name, tensor in tensors.items()}),
    "one reading": resaved(lambda tensors: {CLS.key: tensors[CLS.key]}),
    "bfloat16": resaved(lambda tensors: {name: tensor.bfloat16() for name, tensor in tensors.items()}),
    "NaN": resaved(lambda tensors: {name: tensor * torch.nan for name, tensor in tensors.items()}),
    "other values": resaved(lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()}),
    "rows of another shard": lambda path: shutil.copy(sorted(path.parent.glob("shard_*"))[1], path),
    "without metadata": lambda path: save_file(held(path), path),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_shard_that_this_extraction_did_not_write_is_encoded_again(
    inputs: FeatureInputs, backbone: FrozenBackbone, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    expected = interrupted(inputs, backbone, tmp_path)[0]
    whole = held(expected)
    damage(expected)
    continued = extract(inputs, backbone, tmp_path)
    rows = np.load(continued.folder / "readings" / CLS.key / "train.npy")[:8]
    records = [record for records in inputs.images.values() for record in records]
    assert [record.path for record in inputs.images["train"][:8]] == [record.path for record in records[:8]]
    np.testing.assert_allclose(rows, whole[CLS.key].numpy(), atol=1e-5)


class Broken:
    """A backbone that gives infinity for one input."""

    def __init__(self, backbone: FrozenBackbone, row: int) -> None:
        self._backbone, self._row = backbone, row
        self.micro_batch = backbone.micro_batch
        self.parameter_count = backbone.parameter_count
        self.preprocess = backbone.preprocess
        self.require = backbone.require

    def encode_pixels(self, pixels: torch.Tensor, asked: Sequence[Reading]) -> dict[Reading, torch.Tensor]:
        return self._spoilt(self._backbone.encode_pixels(pixels, asked))

    def encode_texts(self, texts: Sequence[str], asked: Sequence[Reading]) -> dict[Reading, torch.Tensor]:
        return self._spoilt(self._backbone.encode_texts(texts, asked))

    def _spoilt(self, encoded: dict[Reading, torch.Tensor]) -> dict[Reading, torch.Tensor]:
        for features in encoded.values():
            features[self._row, 3] = torch.inf
        return encoded


def test_features_that_are_not_finite_are_refused_with_their_input(
    inputs: FeatureInputs, backbone: FrozenBackbone
) -> None:
    broken: Any = Broken(backbone, row=2)
    records = inputs.images["train"]
    with pytest.raises(UserError, match="gives NaN or infinity for the image .*" + records[2].path.name):
        encode_shard(broken, Shard("images", 8, tuple(record.path for record in records[:5]), (MEAN,)))
    with pytest.raises(UserError, match="gives NaN or infinity for the text 'a round pool'; check its weights"):
        encode_shard(broken, Shard("texts", 8, ("a tower", "a road", "a round pool"), (LAST,)))
