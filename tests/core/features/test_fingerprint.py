import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import InternVLModel

from core.config import TrainConfig
from core.errors import UserError
from core.features.inputs import read_inputs
from core.files.json_files import read_json


def test_it_stays_the_same_for_what_features_do_not_depend_on(demo_config: TrainConfig) -> None:
    changed = demo_config.with_overrides({"model.adapter_width": 8, "seed": 5, "features.text_pooling": "mean"})
    assert read_inputs(changed).parts == read_inputs(demo_config).parts


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
    assert read_inputs(changed).parts.fingerprint != read_inputs(demo_config).parts.fingerprint


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo, tmp_path / "copy", ignore=shutil.ignore_patterns("features")))


@pytest.fixture
def moved(copy: Path, demo_config: TrainConfig) -> TrainConfig:
    """Reads a copy of the small data set, which a test may change."""
    return demo_config.with_overrides(
        {
            "data.train_annotations": str(copy / "train.json"),
            "data.test_annotations": str(copy / "test.json"),
            "data.image_root": str(copy / "images"),
            "features.backbone": str(copy / "tiny-internvl"),
        }
    )


def fingerprint(config: TrainConfig) -> str:
    return read_inputs(config).parts.fingerprint


def shard(folder: Path) -> None:
    """The same weights in several files."""
    model = InternVLModel.from_pretrained(folder, local_files_only=True)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1MB")


def test_where_the_files_lie_does_not_matter(moved: TrainConfig, demo_config: TrainConfig) -> None:
    assert fingerprint(moved) == fingerprint(demo_config)


LOADED = (
    *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"),
    *("processor_config.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.jinja", "tokenizer.4.0.0.json"),
)


@pytest.mark.parametrize("name", LOADED)
def test_a_byte_of_any_file_that_is_loaded_changes_it(copy: Path, moved: TrainConfig, name: str) -> None:
    path = copy / "tiny-internvl" / name
    before = fingerprint(moved)
    path.write_bytes((path.read_bytes() if path.exists() else b"{}") + b" ")
    between = fingerprint(moved)
    path.write_bytes(path.read_bytes()[:-1] + b"\n")
    assert len({before, between, fingerprint(moved)}) == 3


@pytest.mark.parametrize("pattern", ["model.safetensors.index.json", "model-00001-of-*", "model-00002-of-*"])
def test_a_byte_of_the_index_or_of_any_shard_changes_it(copy: Path, moved: TrainConfig, pattern: str) -> None:
    shard(copy / "tiny-internvl")
    before = fingerprint(moved)
    (path,) = (copy / "tiny-internvl").glob(pattern)
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint(moved) != before


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "README.md", "generation_config.json", "model.fp16.safetensors", "flax_model.msgpack"]
)
def test_what_is_not_loaded_does_not_change_it(copy: Path, moved: TrainConfig, name: str) -> None:
    before = fingerprint(moved)
    (copy / "tiny-internvl" / name).write_bytes(b"of another model")
    assert fingerprint(moved) == before


def test_two_pickled_models_do_not_share_one(copy: Path, moved: TrainConfig) -> None:
    folder = copy / "tiny-internvl"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is pickled"):
        read_inputs(moved)


def test_a_replaced_image_of_equal_size_and_time_changes_it(copy: Path, moved: TrainConfig) -> None:
    before = fingerprint(moved)
    path = next((copy / "images").rglob("*.jpeg"))
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(moved) != before


def test_what_it_remembers_lies_in_the_folder_of_stores_and_nothing_else_there_is_touched(
    demo_config: TrainConfig,
) -> None:
    root = demo_config.features.store
    (root / "digests").mkdir(parents=True)
    theirs = {root / "thesis.tex": "mine", root / "digests" / "a.txt": "mine", root / "identity.json": "not JSON"}
    for path, content in theirs.items():
        path.write_text(content)
    assert fingerprint(demo_config) == fingerprint(demo_config)
    assert {path: path.read_text() for path in theirs} == theirs


def test_a_file_in_the_place_of_the_store_is_one_line(demo_config: TrainConfig) -> None:
    demo_config.features.store.write_text("mine")
    with pytest.raises(UserError, match=r"features\.store: .* is a file, not a folder"):
        read_inputs(demo_config)
    assert demo_config.features.store.read_text() == "mine"


def as_it_is(copy: Path) -> Path:
    return copy / "train.json"


def linked(copy: Path) -> Path:
    (copy / "linked.json").symlink_to(copy / "train.json")
    return copy / "linked.json"


def copied(copy: Path) -> Path:
    return Path(shutil.copy(copy / "train.json", copy / "copied.json"))


def rewritten(copy: Path) -> Path:
    (copy / "rewritten.json").write_text(json.dumps(list(reversed(read_json(copy / "train.json")))))
    return copy / "rewritten.json"


def with_one_image(copy: Path) -> Path:
    """Under another id and a hard link of another name."""
    (image,) = {record["image"] for record in read_json(copy / "train.json")[:1]}
    os.link(copy / "images" / image, copy / "images" / "test" / "again.jpeg")
    record = {"image_id": "9999/again.jpeg", "image": "test/again.jpeg", "caption": ["A red pool."]}
    (copy / "mixed.json").write_text(json.dumps([*read_json(copy / "test.json"), record]))
    return copy / "mixed.json"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (as_it_is, "data.test_annotations: .*train.json holds the training annotations"),
        (linked, "holds the training annotations"),
        (copied, "copied.json holds the training annotations"),
        (rewritten, r"rewritten.json: names .*\.jpeg, which .*train.json names, too \(36 of 36 images\)"),
        (with_one_image, r"mixed.json: names .*again\.jpeg, which .*train.json names, too \(1 of 31 images\)"),
    ],
)
def test_test_data_that_is_training_data_is_refused(
    copy: Path, moved: TrainConfig, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_inputs(moved.with_overrides({"data.test_annotations": str(make(copy))}))
    assert "\n" not in str(caught.value)


def test_buildings_and_images_that_two_splits_share_are_noted(copy: Path, moved: TrainConfig) -> None:
    assert read_inputs(moved).notes == {}
    records = read_json(copy / "test.json")
    for record in records[:2]:
        record["image_id"] = f"0003/{record['image_id'].split('/')[1]}-test"
    (copy / "test.json").write_text(json.dumps(records))
    building = {"test building that is a training building, too (the first: 0003)": 1}
    assert read_inputs(moved).notes == building
    train = read_json(copy / "train.json")
    again = [{**record, "image_id": f"x{number}/a"} for number, record in enumerate(train[::3])]
    (copy / "train.json").write_text(json.dumps([*train, *again]))
    notes = read_inputs(moved).notes
    assert notes.pop("image file in the training and in the validation split, under two image ids") > 0
    assert notes.pop("image under several image_ids") == len(again)
    assert notes == building
