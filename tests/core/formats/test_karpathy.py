import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from core.errors import UserError
from core.formats import karpathy
from tests.core.formats.sources import ANYTHING, draw, import_to, read_records, survives, write


def image(name: str, split: str, *captions: str, **more: Any) -> dict[str, Any]:
    """As in dataset_coco.json; RSICD, UCM and Flickr30k have neither filepath nor cocoid."""
    sentences = [
        {"tokens": text.lower().rstrip(".").split(), "raw": text, "imgid": 0, "sentid": number}
        for number, text in enumerate(captions)
    ]
    ids = list(range(len(captions)))
    return {"sentids": ids, "imgid": 0, "sentences": sentences, "split": split, "filename": name, **more}


def test_all_splits_of_the_file_become_geotext_entries(tmp_path: Path) -> None:
    draw(tmp_path / "RSICD_images", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    images = [
        image("a.jpg", "train", "one .", "two ."),
        image("b.jpg", "restval", "three ."),
        image("c.jpg", "val", "four ."),
        image("d.jpg", "test", "five .", "five ."),
    ]
    source = write(tmp_path / "dataset_rsicd.json", {"images": images, "dataset": "rsicd"})
    files, _ = import_to(source, tmp_path / "out")
    assert files == {
        "train": [
            {"image_id": "a/a.jpg", "image": "a.jpg", "caption": "one ."},
            {"image_id": "a/a.jpg", "image": "a.jpg", "caption": "two ."},
            {"image_id": "b/b.jpg", "image": "b.jpg", "caption": "three ."},
        ],
        "validation": [{"image_id": "c/c.jpg", "image": "c.jpg", "caption": "four ."}],
        "test": [{"image_id": "d/d.jpg", "image": "d.jpg", "caption": ["five .", "five ."]}],
    }


def test_cocos_folders_are_part_of_the_path_and_not_the_group(tmp_path: Path) -> None:
    name = "COCO_val2014_000000391895.jpg"
    draw(tmp_path / "coco", f"val2014/{name}", "val2014/t.jpg")
    images = [
        image(name, "restval", "x", filepath="val2014", cocoid=391895),
        image("t.jpg", "test", "y", filepath="val2014"),
    ]
    source = write(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    files, _ = import_to(source, tmp_path / "out", images=tmp_path / "coco")
    (entry,) = files["train"]
    assert entry["image"] == f"val2014/{name}"
    assert entry["image_id"] == f"val2014_{name.removesuffix('.jpg')}/{name}"


def test_a_sentence_without_its_raw_text_is_made_of_its_words(tmp_path: Path) -> None:
    source = {"images": [{"filename": "a.jpg", "split": "test", "sentences": [{"tokens": ["two", "guys"]}]}]}
    (record,), _ = read_records(karpathy.read, write(tmp_path / "d.json", source))
    assert record.captions == ("two guys",)


def test_another_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no list of images, as a Karpathy file has"):
        read_records(karpathy.read, write(tmp_path / "d.json", {"images": 3}))


@settings(max_examples=60)
@given(ANYTHING)
def test_any_json_is_a_data_set_or_one_line(content: Any) -> None:
    survives("d.json", json.dumps({"images": content}), format="karpathy")
