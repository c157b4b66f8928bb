import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.data.annotations import check_dataset, read_annotations
from core.data.geometry import RELATIONS
from core.errors import UserError


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


def test_an_entry_is_read_with_corners_and_relations(root: Path) -> None:
    (read,) = read_annotations(write(root, [record()]), root).images
    assert (read.group, read.path) == ("0839", root / "train/0839/image-0.jpeg")
    assert read.captions == ("In the center is an office building.",)
    assert [region.sentence for region in read.regions] == ["The object in the center.", "On the upper side, a road."]
    assert read.regions[0].box == pytest.approx((0.4, 0.4, 0.6, 0.6))
    assert [region.relation for region in read.regions] == [-1, RELATIONS.index("above")]


def test_without_pictures_an_image_is_a_name(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(image="./no/such.jpeg"), record(image="no/such.jpeg")]), None).images
    assert (read.path, read.has_picture) == (Path("no/such.jpeg"), False)
    with pytest.raises(UserError, match=r"entry 1 .* names the image other, but .*entry 0"):
        read_annotations(write(root, [record(image="one"), record(image="other")]), None)


def test_a_caption_may_be_a_list_as_in_test_files(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(caption=["one", "two", "three"])]), root).images
    assert read.captions == ("one", "two", "three")


def test_entries_of_one_image_are_merged_without_repetitions(root: Path) -> None:
    annotations = read_annotations(
        write(root, [record(caption="one"), record(1), record(caption="two"), record(caption="one")]), root
    )
    assert annotations.images[0].captions == ("one", "two")
    assert len(annotations.images[0].regions) == 2
    assert annotations.repaired == {"repeated caption dropped": 1}


def test_explicit_relations_win(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(relations=[None, "inside", None])]), root).images
    assert [region.relation for region in read.regions] == [-1, RELATIONS.index("inside")]


@pytest.mark.parametrize(
    "absent", [{"bboxes": [None] * 3}, {"sentences": [None] * 3}, {"sentences": None, "bboxes": None}]
)
def test_absent_regions_are_no_error(root: Path, absent: dict[str, Any]) -> None:
    (read,) = read_annotations(write(root, [record(**absent)]), root).images
    assert read.regions == ()


def test_the_upstream_sentinel_is_an_absent_box(root: Path) -> None:
    boxes = [[-100] * 4, [0.5, 0.1, 0.2, 0.1], None]
    (read,) = read_annotations(write(root, [record(bboxes=boxes)]), root).images
    assert len(read.regions) == 1


def test_boxes_that_stick_out_or_have_no_area_are_repaired_and_counted(root: Path) -> None:
    boxes = [[0.95, 0.5, 0.2, 0.2], [0.5, 0.5, 0.0, 0.2], None]
    annotations = read_annotations(write(root, [record(bboxes=boxes)]), root)
    assert annotations.images[0].regions[0].box == pytest.approx((0.85, 0.4, 1.0, 0.6))
    assert annotations.repaired == {"box clamped to the image": 1, "box without area dropped": 1}


def test_text_of_any_script_is_kept(root: Path) -> None:
    (read,) = read_annotations(write(root, [record(caption="Ein grünes Dach 屋根")]), root).images
    assert read.captions == ("Ein grünes Dach 屋根",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"caption": None}, "entry 1 (0839/image-1.jpeg): has no caption"),
        ({"caption": "  "}, "entry 1 (0839/image-1.jpeg): has no caption"),
        ({"caption": []}, "entry 1 (0839/image-1.jpeg): has no caption"),
        ({"caption": [" ", None]}, "entry 1 (0839/image-1.jpeg): has no caption"),
        ({"image_id": None, "image": None}, "entry 1: has no image"),
        ({"image": None}, "entry 1 (0839/image-1.jpeg): has no image"),
        ({"image": "train/0839/nowhere.jpeg"}, "nowhere.jpeg is missing"),
        ({"image": "../secret.jpeg"}, "is outside "),
        ({"image": "/etc/passwd"}, "is outside "),
        ({"bboxes": [[0.5, 0.5, 0.2], None, None]}, "(0839/image-1.jpeg): bboxes[0]: has 3 numbers instead of 4"),
        ({"bboxes": [[0.5, 0.5, "a", 0.2], None, None]}, "bboxes[0]: contains values that are not finite numbers"),
        (
            {"bboxes": [[0.5, 0.5, float("nan"), 0.2], None, None]},
            "bboxes[0]: contains values that are not finite numbers",
        ),
        ({"bboxes": [None]}, "has 3 sentences, 1 bboxes"),
        ({"bboxes": "none"}, "must be lists"),
        ({"relations": [None, "beside", None]}, "relations[1]: 'beside' is not one of left, right"),
    ],
)
def test_a_bad_entry_is_one_line_that_names_file_and_entry(root: Path, change: dict[str, Any], message: str) -> None:
    path = write(root, [record(), record(1, **change)])
    with pytest.raises(UserError) as caught:
        read_annotations(path, root)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: entry 1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no entry"),
        ("{}", "is not a list of entries"),
        ("[1]", "entry 0: is not an object"),
        ("[{", "JSON"),
    ],
)
def test_a_file_that_is_no_annotation_is_one_line(root: Path, text: str, message: str) -> None:
    path = root.parent / "train.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_annotations(path, root)


def test_two_images_of_one_image_id_are_refused_by_name(root: Path) -> None:
    path = write(root, [record(), record(1), record(2, image_id="0839/image-1.jpeg")])
    with pytest.raises(UserError) as caught:
        read_annotations(path, root)
    for part in (
        "entry 2 (0839/image-1.jpeg): names",
        "image-2.jpeg",
        "entry 1 (0839/image-1.jpeg) names",
        "image-1.jpeg",
    ):
        assert part in str(caught.value)
    counts = check_dataset(path, root)
    assert (counts.images, counts.rejected.total()) == (2, 1)


def test_one_image_under_two_spellings_is_one_image(root: Path) -> None:
    (root / "link").symlink_to(root / "train")
    other = ("./train//0839/image-0.jpeg", "link/0839/image-0.jpeg", str(root / "train/0839/image-0.jpeg"))
    path = write(root, [record(), *(record(image=name, caption=name) for name in other)])
    (read,) = read_annotations(path, root).images
    assert len(read.captions) == 4


def test_relations_of_merged_entries_refer_to_the_first_region_of_the_image(root: Path) -> None:
    left, middle, right = [0.2, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.8, 0.5, 0.1, 0.1]
    first = record(sentences=["middle", "left"], bboxes=[middle, left])
    second = record(caption="two", sentences=["left", "right", "middle"], bboxes=[left, right, middle])
    (read,) = read_annotations(write(root, [first, second]), root).images
    found = [(region.sentence, region.relation) for region in read.regions]
    assert found == [("middle", -1), ("left", RELATIONS.index("left")), ("right", RELATIONS.index("right"))]


def test_a_given_relation_holds_and_a_second_one_is_counted(root: Path) -> None:
    names = ["inside", "outside", "left"], ["right", "inside", "left"], [None, None, "left"]
    records = [record(caption=str(number), relations=relations) for number, relations in enumerate(names)]
    annotations = read_annotations(write(root, records), root)
    assert [region.relation for region in annotations.images[0].regions] == [-1, RELATIONS.index("outside")]
    assert annotations.repaired == {"contradictory relation dropped": 2, "relation of a first region dropped": 1}


def test_relations_to_another_first_region_give_way_to_those_of_the_boxes(root: Path) -> None:
    """What the second entry says refers to its own first region, which is not that of the image."""
    left, middle, right = [0.2, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.8, 0.5, 0.1, 0.1]
    first = record(sentences=["left"], bboxes=[left], relations=[None])
    second = record(caption="two", sentences=["right", "middle"], bboxes=[right, middle], relations=[None, "left"])
    annotations = read_annotations(write(root, [first, second]), root)
    found = [(region.sentence, region.relation) for region in annotations.images[0].regions]
    side = RELATIONS.index("right")
    assert found == [("left", -1), ("right", side), ("middle", side)]
    assert annotations.repaired == {"relation to another first region replaced": 1}


def test_an_absent_id_is_the_path_and_a_number_is_an_id(root: Path) -> None:
    records = [record(image_id=None), record(1, image_id=7), record(2, image_id=8.0)]
    annotations = read_annotations(write(root, records), root)
    assert [image.image_id for image in annotations.images] == ["train/0839/image-0.jpeg", "7", "8"]
    assert annotations.repaired == {"absent image_id replaced by the path of the image": 1}
    with pytest.raises(UserError, match=r"image_id must be text or an integer, not 1\.5"):
        read_annotations(write(root, [record(image_id=1.5)]), root)


def test_an_empty_caption_in_a_list_is_dropped_and_counted(root: Path) -> None:
    annotations = read_annotations(write(root, [record(caption=["one", " ", None, "two"])]), root)
    assert annotations.images[0].captions == ("one", "two")
    assert annotations.repaired == {"empty caption dropped": 2}


@pytest.mark.parametrize(("beyond", "repairs"), [(0.0009, {}), (0.0011, {"box clamped to the image": 1})])
def test_a_box_beyond_the_edge_by_rounding_is_no_repair(root: Path, beyond: float, repairs: dict[str, int]) -> None:
    boxes = [[0.9 + beyond, 0.5, 0.2, 0.2], None, None]
    annotations = read_annotations(write(root, [record(bboxes=boxes)]), root)
    assert annotations.images[0].regions[0].box[2] == 1.0
    assert annotations.repaired == repairs


def test_links_to_images_are_followed(root: Path) -> None:
    """The root itself, a folder below it, and a file below that; what is written may not leave the root."""
    outside = root.parent / "elsewhere"
    (root / "train").rename(outside)
    (root / "train").symlink_to(outside)
    (root / "file.jpeg").symlink_to(outside / "0839" / "image-1.jpeg")
    (root.parent / "linked").symlink_to(root)
    path = write(root, [record(), record(1, image="file.jpeg"), record(2, image=str(root / "train/0839/image-2.jpeg"))])
    read = read_annotations(path, root.parent / "linked").images
    assert [image.path.relative_to(root.parent / "linked") for image in read] == [
        Path("train/0839/image-0.jpeg"),
        Path("file.jpeg"),
        Path("train/0839/image-2.jpeg"),
    ]
    with pytest.raises(UserError, match="is outside"):
        read_annotations(write(root, [record(image="../elsewhere/0839/image-0.jpeg")]), root)


def test_git_lfs_pointers_are_called_so(root: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (root / "train/0839/image-0.jpeg").write_text(pointer)
    counts = check_dataset(write(root, [record()]), root)
    assert list(counts.rejected) == [
        "cannot be read as an image (it is a Git LFS pointer, not the image itself; run git lfs pull)"
    ]
    (root.parent / "train.json").write_text(pointer)
    with pytest.raises(UserError, match="is a Git LFS pointer, not the file itself; run git lfs pull"):
        check_dataset(root.parent / "train.json", root)


def test_an_image_id_without_a_folder_is_noted(root: Path) -> None:
    annotations = read_annotations(write(root, [record(image_id="a"), record(1, image_id=7), record(2)]), root)
    assert [r.group for r in annotations.images] == ["a", "7", "0839"]
    assert annotations.notes == {"image_id without a folder, so that its image is a building of its own": 2}


def test_one_image_under_several_image_ids_is_noted(root: Path) -> None:
    path = write(root, [record(), record(image_id="0001/a"), record(image_id="0002/a"), record(1)])
    assert read_annotations(path, root).notes == {"image under several image_ids": 1}


def test_a_file_of_one_building_is_noted(root: Path) -> None:
    notes = {"image in a file of a single building": 2}
    assert read_annotations(write(root, [record(), record(1)]), root).notes == notes
    assert check_dataset(write(root, [record(), record(1)]), root).notes == notes


@pytest.mark.parametrize("image_id", ["/0839/a", "./0839/a", "0839//a", " 0839 /a", "../0839/a"])
def test_the_group_is_the_first_part_that_names_something(root: Path, image_id: str) -> None:
    (read,) = read_annotations(write(root, [record(image_id=image_id)]), root).images
    assert read.group == "0839"


def test_a_missing_folder_of_images_is_one_line(root: Path) -> None:
    with pytest.raises(UserError, match="nowhere: there is no such folder of images"):
        read_annotations(write(root, [record()]), root / "nowhere")


FLICKR = Path(__file__).parents[4] / "shared" / "data" / "flickr8k-entities"


@pytest.mark.skipif(not FLICKR.is_dir(), reason="the Flickr8k set is not on this machine")
def test_rounding_at_the_edges_of_real_boxes_is_no_repair() -> None:
    annotations = read_annotations(FLICKR / "train.json", FLICKR / "images")
    assert len(annotations.images) == 1200
    assert "box clamped to the image" not in annotations.repaired


def test_a_check_continues_after_a_bad_entry(root: Path) -> None:
    (root / "train/0839/image-2.jpeg").write_bytes(b"no image")
    path = write(root, [record(), record(1, caption=None), record(2)])
    counts = check_dataset(path, root)
    assert (counts.images, counts.captions, counts.regions, counts.groups) == (1, 1, 2, 1)
    assert counts.relations == {"above": 1}
    reason = "it is of no format or layout that Pillow reads"
    assert counts.rejected == {"has no caption": 1, f"cannot be read as an image ({reason})": 1}
    assert any("entry 1 (0839/image-1.jpeg)" in message for message in counts.messages)
