import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.data import ImageRecord, check_dataset, open_image, read_annotations, split_by_group
from core.errors import UserError
from core.geometry import RELATIONS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "train" / "0839"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (20, 10), (60 * number, 90, 30)).save(folder / f"image-{number}.jpeg")
    return tmp_path / "images"


def record(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "image_id": f"0839/image-{number}.jpeg",
        "image": f"train/0839/image-{number}.jpeg",
        "caption": "In the center is an office building.",
        "sentences": ["The object in the center.", "On the upper side, a road.", None],
        "bboxes": [[0.5, 0.5, 0.2, 0.2], [0.5, 0.1, 0.2, 0.1], None],
        **changes,
    }


def write(root: Path, records: Any) -> Path:
    path = root.parent / "train.json"
    path.write_text(json.dumps(records))
    return path


def test_a_record_is_read_with_corners_and_relations(root: Path) -> None:
    (read,) = read_annotations(write(root, [record()]), root).records
    assert (read.group, read.image) == ("0839", root / "train/0839/image-0.jpeg")
    assert read.captions == ("In the center is an office building.",)
    assert [region.sentence for region in read.regions] == ["The object in the center.", "On the upper side, a road."]
    assert read.regions[0].box == pytest.approx((0.4, 0.4, 0.6, 0.6))
    assert [region.relation for region in read.regions] == [-1, RELATIONS.index("above")]


def test_a_caption_may_be_a_list_as_in_test_files(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(caption=["one", "two", "three"])]), root).records
    assert read.captions == ("one", "two", "three")


def test_records_of_one_image_are_merged_and_what_repeats_is_kept_once(root: Path) -> None:
    annotations = read_annotations(
        write(root, [record(caption="one"), record(1), record(caption="two"), record(caption="one")]), root
    )
    assert annotations.records[0].captions == ("one", "two")
    assert len(annotations.records[0].regions) == 2
    assert annotations.repaired == {"repeated caption dropped": 1}


def test_explicit_relations_win(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(relations=[None, "inside", None])]), root).records
    assert [region.relation for region in read.regions] == [-1, RELATIONS.index("inside")]


@pytest.mark.parametrize(
    "absent", [{"bboxes": [None] * 3}, {"sentences": [None] * 3}, {"sentences": None, "bboxes": None}]
)
def test_absent_regions_are_no_error(root: Path, absent: dict[str, Any]) -> None:
    (read,) = read_annotations(write(root, [record(**absent)]), root).records
    assert read.regions == ()


def test_the_upstream_sentinel_is_an_absent_box(root: Path) -> None:
    boxes = [[-100] * 4, [0.5, 0.1, 0.2, 0.1], None]
    (read,) = read_annotations(write(root, [record(bboxes=boxes)]), root).records
    assert len(read.regions) == 1


def test_boxes_that_stick_out_or_have_no_area_are_repaired_and_counted(root: Path) -> None:
    boxes = [[0.95, 0.5, 0.2, 0.2], [0.5, 0.5, 0.0, 0.2], None]
    annotations = read_annotations(write(root, [record(bboxes=boxes)]), root)
    assert annotations.records[0].regions[0].box == pytest.approx((0.85, 0.4, 1.0, 0.6))
    assert annotations.repaired == {"box clamped to the picture": 1, "box without area dropped": 1}


def test_text_of_any_script_is_kept(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(caption="Ein grünes Dach 屋根")]), root).records
    assert read.captions == ("Ein grünes Dach 屋根",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": None}, "record 1 (0839/image-1.jpeg): has no caption"),
        ({"caption": "  "}, "record 1 (0839/image-1.jpeg): has no caption"),
        ({"caption": []}, "record 1 (0839/image-1.jpeg): has no caption"),
        ({"caption": ["one", None]}, "record 1 (0839/image-1.jpeg): has no caption"),
        ({"image_id": None}, "record 1: has no image_id"),
        ({"image": None}, "record 1 (0839/image-1.jpeg): has no image"),
        ({"image": "train/0839/nowhere.jpeg"}, "nowhere.jpeg is missing"),
        ({"image": "../secret.jpeg"}, "lies outside of"),
        ({"image": "/etc/passwd"}, "lies outside of"),
        ({"bboxes": [[0.5, 0.5, 0.2], None, None]}, "(0839/image-1.jpeg): bboxes[0]: has 3 numbers instead of 4"),
        ({"bboxes": [[0.5, 0.5, "a", 0.2], None, None]}, "bboxes[0]: holds something else than finite numbers"),
        ({"bboxes": [[0.5, 0.5, float("nan"), 0.2], None, None]}, "something else than finite numbers"),
        ({"bboxes": [None]}, "has 3 sentences, 1 bboxes"),
        ({"bboxes": "none"}, "must be lists"),
        ({"relations": [None, "beside", None]}, "relations[1]: 'beside' is not one of left, right"),
    ],
)
def test_a_bad_record_is_one_line_that_names_file_and_record(root: Path, change: dict[str, Any], message: str) -> None:
    path = write(root, [record(), record(1, **change)])
    with pytest.raises(UserError) as caught:
        read_annotations(path, root)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: record 1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no record"),
        ("{}", "is not a list of records"),
        ("[1]", "record 0: is not an object"),
        ("[{", "JSON"),
    ],
)
def test_a_file_that_is_no_annotation_is_one_line(root: Path, text: str, message: str) -> None:
    path = root.parent / "train.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_annotations(path, root)


def test_a_check_counts_on_after_a_bad_record(root: Path) -> None:
    (root / "train/0839/image-2.jpeg").write_bytes(b"no picture")
    path = write(root, [record(), record(1, caption=None), record(2)])
    counts = check_dataset(path, root)
    assert (counts.images, counts.captions, counts.regions, counts.groups) == (1, 1, 2, 1)
    assert counts.relations == {"above": 1}
    assert counts.rejected == {"has no caption": 1, "cannot be read as a picture": 1}
    assert any("record 1 (0839/image-1.jpeg)" in message for message in counts.messages)


def _rgba(path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(path, format="PNG")


def _grey(path: Path) -> None:
    Image.new("L", (8, 8), 255).save(path, format="JPEG")


def _cmyk(path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(path, format="JPEG")


@pytest.mark.parametrize(("save", "mode"), [(_rgba, "RGBA"), (_grey, "L"), (_cmyk, "CMYK")])
def test_other_colour_modes_become_rgb(tmp_path: Path, save: Callable[[Path], None], mode: str) -> None:
    save(tmp_path / "picture")
    image, repairs = open_image(tmp_path / "picture")
    assert (image.mode, repairs) == ("RGB", [f"picture is {mode}"])
    assert np.asarray(image).min() >= 250, "white, and white behind what is transparent"


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpeg", exif=exif)
    image, repairs = open_image(tmp_path / "a.jpeg")
    assert (image.size, repairs) == ((10, 20), ["picture is rotated by EXIF"])


def test_a_truncated_jpeg_is_repaired_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpeg")
    content = (tmp_path / "a.jpeg").read_bytes()
    (tmp_path / "a.jpeg").write_bytes(content[: len(content) // 2])
    image, repairs = open_image(tmp_path / "a.jpeg")
    assert (image.size, repairs) == ((64, 64), ["picture is truncated"])


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpeg").write_text("text")
    with pytest.raises(UserError, match=r"a\.jpeg: cannot be read as a picture"):
        open_image(tmp_path / "a.jpeg")


def records(groups: list[int]) -> list[ImageRecord]:
    return [ImageRecord(Path(f"{i}"), f"{g}/{i}", str(g), ("text",), ()) for i, g in enumerate(groups)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 5), st.floats(0.05, 0.95))
def test_no_building_straddles_and_no_record_is_lost(groups: list[int], seed: int, fraction: float) -> None:
    members = records(groups)
    fractions = {"train": 1 - fraction, "validation": fraction}
    if len(set(groups)) < 2:
        with pytest.raises(UserError, match="cannot be split"):
            split_by_group(members, fractions, seed)  # type: ignore[arg-type]
        return
    splits = split_by_group(members, fractions, seed)  # type: ignore[arg-type]
    train, validation = ({record.group for record in splits[name]} for name in ("train", "validation"))  # type: ignore[index]
    assert train
    assert validation
    assert not train & validation
    assert sorted(r.image_id for split in splits.values() for r in split) == sorted(r.image_id for r in members)
    shuffled = split_by_group(members[::-1], fractions, seed)  # type: ignore[arg-type]
    assert {record.group for record in shuffled["train"]} == train
