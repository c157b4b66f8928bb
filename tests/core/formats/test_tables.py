from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.formats import tables
from tests.core.formats.sources import draw, import_to, read_records, survives


def table(tmp_path: Path, text: str, name: str = "captions.csv") -> Path:
    draw(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_a_row_a_caption_with_quotes_commas_and_splits(tmp_path: Path) -> None:
    source = table(tmp_path, '\ufeffimage,caption,split\na.jpg,"a roof, ""flat""",train\nb.jpg,ein grünes Dach,test\n')
    files, _ = import_to(source, tmp_path / "out")
    assert files["train"] == [{"image_id": "a/a.jpg", "image": "a.jpg", "caption": 'a roof, "flat"'}]
    assert files["test"] == [{"image_id": "b/b.jpg", "image": "b.jpg", "caption": ["ein grünes Dach"]}]


@pytest.mark.parametrize("delimiter", ["\t", "|", ";"])
def test_other_delimiters_are_told_by_the_first_line(tmp_path: Path, delimiter: str) -> None:
    lines = ["image_name, comment_number, comment", "a.jpg, 0, Two guys", "b.jpg"]
    source = table(tmp_path, "\n".join(line.replace(", ", delimiter) for line in lines))
    (record,), findings = read_records(tables.read, source)
    assert record.names == ("a.jpg",)
    assert record.captions[0].startswith("Two guys")
    assert findings.dropped == {"line with another number of cells than the first": 1}


def test_boxes_in_four_columns_have_the_layout_of_their_names(tmp_path: Path) -> None:
    source = table(tmp_path, "image,caption,x,y,w,h,split\na.jpg,left,0,0,20,20,train\nb.jpg,none,,,,,test\n")
    files, _ = import_to(source, tmp_path / "out")
    assert files["train"][0]["sentences"] == ["left"]
    assert files["train"][0]["bboxes"] == [[0.25, 0.5, 0.5, 1.0]]
    assert "bboxes" not in files["test"][0]


def test_boxes_of_an_uncertain_layout_are_asked_for(tmp_path: Path) -> None:
    source = table(tmp_path, 'image,caption,box,split\na.jpg,x,"[2, 2, 10, 10]",train\nb.jpg,y,,test\n')
    with pytest.raises(UserError, match=r"its boxes may be xyxy or xywh; say which with --boxes xyxy\|xywh"):
        import_to(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    files, _ = import_to(source, tmp_path / "out", layout="xyxy")
    assert files["train"][0]["bboxes"] == [[0.15, 0.3, 0.2, 0.4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has an empty first line"),
        (
            "a.jpg,a roof\n",
            "has no column of images; its columns are a.jpg, a roof; name the column image in its first",
        ),
        ("image,image,caption\n", "names the column 'image' twice"),
    ],
)
def test_a_table_without_names_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_records(tables.read, table(tmp_path, text))


def test_text_of_another_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("image,caption\na.jpg,Dächer".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_records(tables.read, tmp_path / "a.csv")


@settings(max_examples=60)
@given(st.text(alphabet='image,caption\n"a.jpg[]1 \0\r;', max_size=40), st.binary(max_size=5))
def test_any_table_is_a_data_set_or_one_line(text: str, rest: bytes) -> None:
    survives("a.csv", b"image,caption,bbox\n" + text.encode() + rest)
