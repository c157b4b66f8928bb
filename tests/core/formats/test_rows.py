from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.formats.records import Findings, Record, Region
from core.formats.rows import record_of_row, require_columns
from tests.core.formats.sources import ANYTHING, WORDS


def parse(**row: Any) -> tuple[Record | None, Findings]:
    findings = Findings()
    return record_of_row(row, "t.csv: line 2", "train", findings), findings


def record(**row: Any) -> Record:
    found, findings = parse(**row)
    assert found is not None, findings
    return found


@pytest.mark.parametrize("image", ["image", "image_path", "file_name", "Filename", "img"])
@pytest.mark.parametrize("caption", ["caption", "text", "Captions", "raw"])
def test_columns_are_known_by_the_names_that_published_sets_use(image: str, caption: str) -> None:
    found = record(**{image: "a.jpg", caption: " a roof "})
    assert (found.names, found.captions, found.split) == (("a.jpg",), ("a roof",), "train")


@pytest.mark.parametrize("cell", [["one", "two"], '["one", "two"]', "['one', 'two']"])
def test_a_list_of_captions_may_be_written_as_json_or_as_python_prints_it(cell: Any) -> None:
    assert record(image="a.jpg", captions=cell).captions == ("one", "two")


def test_captions_in_numbered_columns_are_all_read() -> None:
    assert record(image="a.jpg", caption_0="one", caption_1="two").captions == ("one", "two")


def test_a_row_of_image_caption_and_box_is_a_region_described_by_its_caption() -> None:
    found = record(image="a.jpg", caption="a roof", x1="1", y1="2", x2="30", y2="40")
    assert found.regions == (Region("a roof", [1.0, 2.0, 30.0, 40.0]),)
    assert found.layout == "xyxy"
    assert record(image="a.jpg", caption="a roof", x1="", y1="", x2="", y2="").regions == ()
    assert record(image="a.jpg", phrase="a roof", bbox="[1, 2, 30, 40]").captions == ("a roof",)


def test_sentences_belong_to_boxes_one_by_one_and_either_may_be_absent() -> None:
    boxes = [[1, 2, 3, 4], None, [5, 6, 7, 8]]
    found = record(image="a.jpg", caption="x", sentences=["this", "that", None], bboxes=boxes, relations=None)
    assert found.regions == (Region("this", [1, 2, 3, 4]),)
    _, findings = parse(image="a.jpg", caption="x", sentences=["this"], bboxes=boxes)
    assert findings.dropped == {"boxes that are not one for each sentence": 1}


def test_only_relations_that_exist_are_taken_over() -> None:
    boxes = [[1, 2, 3, 4], [5, 6, 7, 8]]
    found, findings = parse(image="a", caption="x", sentences=["p", "q"], bboxes=boxes, relations=["left", "beside"])
    assert found is not None
    assert [region.relation for region in found.regions] == ["left", None]
    assert findings.repaired["unknown relation dropped"] == 1


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"caption": "x"}, "record without an image"),
        ({"image": 3, "caption": "x"}, "record without an image"),
        ({"image": "a.jpg"}, "record without a caption"),
        ({"image": "a.jpg", "caption": [" ", None]}, "record without a caption"),
        ({"image": "a.jpg", "caption": {"en": "x"}}, "caption that is not text"),
        ({"image": "a.jpg", "caption": "\ud800"}, "caption that is not text"),
    ],
)
def test_a_row_that_cannot_be_used_is_a_counted_drop(row: dict[str, Any], what: str) -> None:
    found, findings = parse(**row)
    assert found is None
    assert findings.dropped == {what: 1}


def test_a_table_without_a_column_of_images_is_refused_with_its_columns() -> None:
    with pytest.raises(UserError, match=r"t: has no column of images; its columns are foo, text; name the"):
        require_columns(["foo", "text"], "t")
    with pytest.raises(UserError, match="has no column of captions"):
        require_columns(["image", "title"], "t")


@given(st.dictionaries(WORDS, ANYTHING, max_size=8))
def test_any_row_is_a_record_or_a_counted_drop(row: dict[str, Any]) -> None:
    findings = Findings()
    found = record_of_row(row, "x", "train", findings)
    assert found is not None or findings.dropped
    assert found is None or all(caption.strip() == caption != "" for caption in found.captions)
