import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.errors import UserError
from core.features.inputs import absences, read_inputs
from core.files.json_files import read_json


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


def test_what_the_training_data_lack_is_told(demo_config: TrainConfig, tmp_path: Path) -> None:
    assert absences(read_inputs(demo_config), demo_config) == []
    entries = read_json(demo_config.data.train_annotations)
    bare = [{**entry, "sentences": None, "bboxes": None} for entry in entries]
    single = [{**entry, "sentences": entry["sentences"][:1], "bboxes": entry["bboxes"][:1]} for entry in entries]
    config, lines = demo_config, []
    for records in (bare, single):
        (tmp_path / "train.json").write_text(json.dumps(records))
        config = demo_config.with_overrides({"data.train_annotations": str(tmp_path / "train.json")})
        lines.append(absences(read_inputs(config), config))
    assert lines == [
        ["the training data contain no boxes: box and relation losses are off"],
        ["the training data contain no relations between regions: the relation loss is off"],
    ]
    assert absences(read_inputs(config), config.with_overrides({"loss.spatial": 0.0})) == []
    alone = [{**entry, "image_id": entry["image"].replace("/", "-")} for entry in entries]
    (tmp_path / "train.json").write_text(json.dumps(alone))
    assert absences(read_inputs(config), config) == [
        "every training image is a building of its own: relevance by building is relevance by image"
    ]
