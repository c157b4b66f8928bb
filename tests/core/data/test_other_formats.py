from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from core.data.annotations import read_annotations
from core.data.other_formats import format_of_file, format_of_json, import_hint
from core.errors import UserError
from tests.core.formats.sources import ANYTHING, write


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train.json", {"images": [{"filename": "a.jpg"}]}, "is not a list of entries; this is a Karpathy file"),
        ("train.json", {"images": [], "annotations": [{"caption": "x"}]}, "this is a COCO captions file"),
        ("train.json", '{"image": "a", "caption": "x"}\n{"image": "b"}\n', "this is a JSON Lines file"),
        ("train.csv", "image,caption\na.jpg,x\n", "this is a table"),
        ("train.json", [{"image_path": "a.jpg", "text": "x"}], "this is a JSON list as X-VLM and PIR have it"),
    ],
)
def test_annotations_of_another_format_are_called_that(tmp_path: Path, name: str, content: Any, told: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=told) as caught:
        read_annotations(path, tmp_path)
    assert str(caught.value).endswith(f": crossmodal data import {path} OUT")


def test_what_is_no_known_format_gets_no_hint(tmp_path: Path) -> None:
    path = write(tmp_path / "train.json", '{"a": [')
    assert import_hint(path, format_of_file(path)) is None
    with pytest.raises(UserError, match=r"train.json: is not valid JSON \([^;]*\)$"):
        read_annotations(path, tmp_path)
    assert format_of_file(tmp_path / "gone.json") is None


@given(ANYTHING)
def test_any_json_has_a_format_or_none(content: Any) -> None:
    assert format_of_json(content) in (None, "karpathy", "coco", "xvlm", "geotext", "jsonl")
