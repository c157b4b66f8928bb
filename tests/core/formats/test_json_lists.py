import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from core.errors import UserError
from core.formats import json_lists
from core.formats.grouping import Grouping
from tests.core.formats.sources import ANYTHING, draw, import_to, read_records, survives, write

TRAIN = [
    {"caption": "a meadow .", "image": "meadow_1.jpg", "image_id": 4247, "label_name": "meadow", "label": 36},
    {"caption": "worn turf .", "image": "meadow_1.jpg", "image_id": 4247, "label_name": "meadow", "label": 36},
    {"caption": "waves .", "image": "beach_2.jpg", "image_id": 903, "label_name": "beach", "label": 8},
]
"""As PIR's rsicd_train.json."""
TEST = [{"image": "test/park_3.tif", "caption": ["a park .", "a pond ."]}]
"""As PIR's rsitmd_test.json: no id, and a folder that the images need not lie in."""


def test_integer_and_absent_ids_string_and_list_captions(tmp_path: Path) -> None:
    draw(tmp_path / "images", "meadow_1.jpg", "beach_2.jpg", "park_3.tif")
    write(tmp_path / "json/rsicd_train.json", TRAIN)
    write(tmp_path / "json/rsicd_test.json", TEST)
    files, _ = import_to(tmp_path / "json", tmp_path / "out", images=tmp_path / "images")
    assert [entry["image_id"] for entry in files["train"]] == ["meadow_1/meadow_1.jpg"] * 2 + ["beach_2/beach_2.jpg"]
    assert files["test"] == [
        {"image_id": "test_park_3/park_3.tif", "image": "test/park_3.tif", "caption": ["a park .", "a pond ."]}
    ]


def test_a_group_may_be_the_scene(tmp_path: Path) -> None:
    draw(tmp_path, "meadow_1.jpg", "beach_2.jpg")
    source = write(tmp_path / "rsicd_train.json", TRAIN)
    grouping = Grouping.parse("column:label_name")
    files, _ = import_to(source, tmp_path / "out", test_fraction=0.0, grouping=grouping)
    assert {entry["image_id"] for entry in files["train"]} == {"meadow/meadow_1.jpg", "beach/beach_2.jpg"}


def test_an_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a list of entries"):
        read_records(json_lists.read, write(tmp_path / "a.json", {}))


@settings(max_examples=60)
@given(ANYTHING)
def test_any_json_is_a_data_set_or_one_line(content: Any) -> None:
    survives("a.json", json.dumps(content), format="xvlm")
