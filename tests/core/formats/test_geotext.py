import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from core.data.annotations import read_annotations
from core.formats import geotext
from core.formats.grouping import Grouping
from tests.core.formats.sources import ANYTHING, draw, import_to, jpeg, survives, write
from tests.core.formats.test_archives import tar, zipped

TRAIN: list[dict[str, Any]] = [
    {
        "image_id": "0839/image-43.jpeg", "image": "train/0839/image-43.jpeg", "caption": "In the center is an office.",
        "sentences": ["The object in the center", "On the upper side", None],
        "bboxes": [[0.408688485622406, 0.6883664131164551, 0.38859522342681885, 0.6234817504882812], [-100] * 4, None],
    }
]  # fmt: skip
TEST: list[dict[str, Any]] = [
    {"image_id": "0001/drone.jpeg", "image": "test/0001/drone.jpeg", "caption": ["one", "two", "three"]}
]
SMALL = [{**TEST[0], "caption": ["one"]}]
FILES = {"train": TRAIN, "test_951_version": TEST, "test_24G_version": SMALL}
IMAGES = {"train/0839/image-43.jpeg": jpeg(1), "test/0001/drone.jpeg": jpeg(2)}


def expected() -> dict[str, Any]:
    kept = {**TRAIN[0], "sentences": TRAIN[0]["sentences"][:2], "bboxes": TRAIN[0]["bboxes"][:2]}
    return {"train": [kept], "test": TEST, "test_24G_version": SMALL}


def published(folder: Path) -> Path:
    for name, content in FILES.items():
        write(folder / f"{name}.json", content)
    return folder


def test_a_folder_keeps_ids_boxes_and_the_name_of_the_small_test_set(tmp_path: Path) -> None:
    source = draw(published(tmp_path / "set"), *IMAGES)
    files, _ = import_to(source, tmp_path / "out")
    assert files == expected()
    (image,) = read_annotations(tmp_path / "out/train.json", tmp_path / "out/images").images
    assert image.group == "0839"
    assert len(image.regions) == 1  # the box of -100 is GeoText's marker of an absent one


def test_archives_that_were_not_unpacked_are_read(tmp_path: Path) -> None:
    source = published(tmp_path / "GeoText1652_Dataset")
    (source / "images/train").mkdir(parents=True)
    tar(source / "images/train/0839.tar.gz", {"./0839/image-43.jpeg": IMAGES["train/0839/image-43.jpeg"]}, "w:gz")
    tar(source / "images/test.tar.gz", {"test/0001/drone.jpeg": jpeg(2), "test/0002/unused.jpeg": jpeg(3)}, "w:gz")
    files, _ = import_to(source, tmp_path / "out")
    assert files == expected()
    found = {path.relative_to(tmp_path / "out/images").as_posix() for path in (tmp_path / "out/images").rglob("*.*")}
    assert found == set(IMAGES)


def test_one_archive_of_everything_is_read(tmp_path: Path) -> None:
    inside = {f"GeoText_Dataset_Official/{name}.json": json.dumps(content).encode() for name, content in FILES.items()}
    inside |= {f"GeoText_Dataset_Official/{name}": content for name, content in IMAGES.items()}
    for source in (zipped(tmp_path / "set.zip", inside), tar(tmp_path / "set.tar.gz", inside, "w:gz")):
        files, _ = import_to(source, tmp_path / "out")
        assert files == expected()
        assert (tmp_path / "out/images/test/0001/drone.jpeg").read_bytes() == jpeg(2)
        shutil.rmtree(tmp_path / "out")


def test_another_grouping_replaces_the_ids(tmp_path: Path) -> None:
    source = draw(published(tmp_path / "set"), *IMAGES)
    files, _ = import_to(source, tmp_path / "out", grouping=Grouping.parse("none"))
    assert files["train"][0]["image_id"] == "train_0839_image-43/image-43.jpeg"


def test_annotations_are_told_by_their_names() -> None:
    names = ("train.json", "test_24G_version.json", "val.json", "state.json", "train.txt", "captions_val2017.json")
    assert [geotext.is_annotation(name) for name in names] == [True, True, True, False, False, False]


@settings(max_examples=50)
@given(ANYTHING)
def test_any_json_is_a_data_set_or_one_line(content: Any) -> None:
    survives("train.json", json.dumps(content), format="geotext")
