import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from core.errors import UserError
from core.formats import coco
from tests.core.formats.sources import ANYTHING, draw, import_to, read_records, survives, write


def captions(**texts: list[str]) -> dict[str, Any]:
    """As captions_train2017.json has them."""
    names = [name.replace("_", "") for name in texts]
    images = [
        {
            "license": 4, "file_name": f"{name}.jpg", "coco_url": f"http://images.cocodataset.org/train2017/{name}.jpg",
            "height": 20, "width": 40, "date_captured": "2013-11-14 17:02:52", "id": number,
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    annotations = [
        {"image_id": number, "id": 37 + number, "caption": text}
        for number, found in enumerate(texts.values())
        for text in found
    ]
    return {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}


def test_both_files_of_the_annotations_folder_are_read_with_images_beside_it(tmp_path: Path) -> None:
    draw(tmp_path / "coco", "train2017/000000391895.jpg", "train2017/000000522418.jpg", "val2017/000000184613.jpg")
    texts = {"_000000391895": ["A man."], "_000000522418": ["A woman.", "A cake."]}
    write(tmp_path / "coco/annotations/captions_train2017.json", captions(**texts))
    write(tmp_path / "coco/annotations/captions_val2017.json", captions(_000000184613=["A cow."]))
    write(tmp_path / "coco/annotations/instances_val2017.json", {"images": [], "annotations": [{"bbox": [1, 2, 3, 4]}]})
    files, imported = import_to(tmp_path / "coco/annotations", tmp_path / "out", test_fraction=0.5)
    assert [entry["image"] for entry in files["validation"]] == ["000000184613.jpg"]
    assert imported.splits["train"].images == imported.splits["test"].images == 1
    assert (tmp_path / "out/images/000000184613.jpg").resolve() == tmp_path / "coco/val2017/000000184613.jpg"


def test_images_without_captions_and_captions_without_images_are_counted(tmp_path: Path) -> None:
    content = captions(a=["x"], b=[])
    content["annotations"] += [{"image_id": 99, "id": 1, "caption": "y"}, {"image_id": 0, "id": 2}]
    records, findings = read_records(coco.read, write(tmp_path / "captions_val2017.json", content))
    assert [record.names for record in records] == [("a.jpg", "val2017/a.jpg")]
    assert findings.dropped == {
        "annotation without a caption": 1, "record without a caption": 1, "captions of an image that is not listed": 1,
    }  # fmt: skip


def test_another_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no lists of images and annotations"):
        read_records(coco.read, write(tmp_path / "c.json", {"images": []}))


@settings(max_examples=60)
@given(ANYTHING, ANYTHING)
def test_any_json_is_a_data_set_or_one_line(images: Any, annotations: Any) -> None:
    survives("c.json", json.dumps({"images": images, "annotations": annotations}), format="coco")
