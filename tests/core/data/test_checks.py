import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from core.data.annotations import AnnotatedImage, DatasetCounts, Region
from core.data.checks import (
    CheckedFile,
    check_file,
    doubts,
    overlaps,
    shared_captions,
    shared_images,
    split_of,
    statistics,
)
from core.data.geometry import Box
from core.data.splits import Split


def image(group: str, *captions: str, boxes: Sequence[Box] = (), path: Path = Path("a.png")) -> AnnotatedImage:
    regions = tuple(Region("a roof", box, -1) for box in boxes)
    return AnnotatedImage(path, f"{group}/a.png", group, captions, regions)


def file(split: Split | None, *images: AnnotatedImage) -> CheckedFile:
    return CheckedFile(Path("a.json"), split, DatasetCounts(), images)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.json", "train"), ("rsicd_train.json", "train"), ("geo_test_24.json", "test"),
        ("val2014.json", "validation"), ("dev.json", "validation"), ("latest.json", None), ("captions.json", None),
        ("train_test.json", None),
        ("Test.JSON", "test"),
    ],
)  # fmt: skip
def test_the_name_of_a_file_says_its_split(name: str, split: Split | None) -> None:
    assert split_of(Path("test/train") / name) == split


def test_captions_and_boxes_are_described() -> None:
    quarter, left, whole = (0.25, 0.25, 0.75, 0.75), (0.0, 0.25, 0.1, 0.75), (0.01, 0.01, 0.99, 0.99)
    images = [image("1", "one", "two", boxes=[quarter, left, whole]), image("2", "one"), image("2", "two", "three")]
    assert dict(statistics(images)) == {
        "distinct captions": "3",
        "of these, under several buildings": "2",
        "captions per image": "1.7 (1 to 2)",
        "boxes per image": "1.0 (0 to 3)",
        "images without a box": "2",
        "box area, quartiles": "15%, 25%, 61%",
        "boxes that touch the edge": "33%",
        "boxes of nearly the whole image": "33%",
    }


def test_without_boxes_or_images_there_are_no_figures_of_them() -> None:
    assert list(dict(statistics([image("1", "one"), image("2", "two")]))) == ["distinct captions", "captions per image"]
    assert list(statistics([])) == []


def test_a_caption_under_one_building_several_times_is_not_shared() -> None:
    assert shared_captions([image("1", "a"), image("1", "a", "b"), image("2", "b"), image("3", "b")]) == {"b": 3}


def test_small_splits_and_shared_captions_are_doubted() -> None:
    few = [image(str(number), f"caption {number % 4}") for number in range(5)]
    assert [line.split(":")[0] for line in doubts(file("train", *few))] == [
        "only 5 buildings",
        "distinct captions under several buildings",
    ]
    assert "loss.positives: text treats" in list(doubts(file("train", *few)))[1]
    assert "evaluation.unique_texts" in list(doubts(file("test", *few)))[1]
    many = [image(str(number), f"caption {number}") for number in range(100)]
    assert list(doubts(file("train", *many))) == list(doubts(file("test", *many[:10]))) == []
    assert len(list(doubts(file("test", *many[:9])))) == len(list(doubts(file("train", *many[:99])))) == 1


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """a and c have equal content, and b has as many bytes."""
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.bmp")
    return {name: tmp_path / f"{name}.bmp" for name in "abc"}


def test_images_are_shared_by_content(pictures: dict[str, Path]) -> None:
    a, b, c = pictures.values()
    assert shared_images([a, b], [c]) == [(a, c)]
    assert shared_images([b], [c]) == []
    assert shared_images([a], [a]) == [(a, a)]


def test_splits_share_buildings_and_images(pictures: dict[str, Path]) -> None:
    a, b, c = pictures.values()
    train, validation = file("train", image("1", "x", path=a)), file("validation", image("2", "y", path=b))
    test, other = file("test", image("1", "z", path=b), image("3", "z", path=c)), file(None, image("1", "x", path=a))
    found = {overlap.splits: (overlap.groups, overlap.images) for overlap in overlaps([train, test, validation, other])}
    assert found == {("train", "test"): (["1"], [(a, c)]), ("validation", "test"): ([], [(b, b)])}
    assert list(overlaps([test, file("test", image("1", "z", path=b)), other])) == []


def test_a_file_is_read_with_its_images(pictures: dict[str, Path], tmp_path: Path) -> None:
    records = [{"image_id": f"1/{name}", "image": f"{name}.bmp", "caption": "x"} for name in ("a", "b", "gone")]
    (tmp_path / "test.json").write_text(json.dumps(records))
    progress: list[tuple[int, int]] = []
    checked = check_file(tmp_path / "test.json", tmp_path, on_progress=lambda *counts: progress.append(counts))
    assert (checked.split, checked.groups, [each.path for each in checked.images]) == (
        "test", {"1"}, [pictures["a"], pictures["b"]],
    )  # fmt: skip
    assert (checked.counts.images, checked.counts.rejected.total(), progress[-1]) == (2, 1, (2, 2))
