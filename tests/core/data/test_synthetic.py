import json
import os
import stat
from pathlib import Path

import pytest
from PIL import Image

from core.data.annotations import check_dataset, read_annotations
from core.data.geometry import RELATIONS
from core.data.synthetic import write_synthetic_dataset
from core.errors import UserError


def draw(folder: Path, *, buildings: int = 12, seed: int = 0) -> Path:
    write_synthetic_dataset(folder, buildings=buildings, images_per_building=3, seed=seed)
    return folder


def test_it_is_a_clean_geotext_data_set_with_every_relation(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data", buildings=40)
    train = check_dataset(folder / "train.json", folder / "images")
    assert (train.images, train.captions, train.groups) == (120, 360, 40)
    assert set(train.relations) == set(RELATIONS)
    assert train.rejected.total() == 0
    test = check_dataset(folder / "test.json", folder / "images")
    assert (test.images, test.captions, test.regions) == (30, 90, 0)


def test_captions_are_a_string_in_train_and_a_list_in_test(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data")
    train, test = (json.loads((folder / f"{name}.json").read_text()) for name in ("train", "test"))
    assert all(isinstance(record["caption"], str) and len(record["bboxes"]) == 3 for record in train)
    assert all(len(record["caption"]) == 3 and "bboxes" not in record for record in test)
    assert any(None in record["sentences"] for record in train)
    assert any(None in record["bboxes"] for record in train)


def test_no_building_is_in_both_sets(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data")
    train, test = (
        {record.group for record in read_annotations(folder / f"{name}.json", folder / "images").images}
        for name in ("train", "test")
    )
    assert not train & test


def test_equal_seeds_draw_equal_data_and_others_do_not(tmp_path: Path) -> None:
    a, b, c = draw(tmp_path / "a"), draw(tmp_path / "b"), draw(tmp_path / "c", seed=1)
    assert (a / "train.json").read_text() == (b / "train.json").read_text() != (c / "train.json").read_text()
    image = "images/train/0003/image-01.jpeg"
    assert (a / image).read_bytes() == (b / image).read_bytes()


def test_a_box_surrounds_the_object_that_its_sentence_names(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data", buildings=40)
    solid = ("a red rectangular building", "a red round pool", "a red hexagonal tower")
    is_red = []
    for record in read_annotations(folder / "train.json", folder / "images").images:
        for region in record.regions:
            if not region.sentence.endswith(tuple(f"{name}." for name in solid)):
                continue
            x1, y1, x2, y2 = (112 * value for value in region.box)
            with Image.open(record.path) as image:
                pixel = image.getpixel((int((x1 + x2) / 2), int((y1 + y2) / 2)))
            assert isinstance(pixel, tuple)
            red, green, blue = pixel
            is_red.append(red > 1.5 * max(green, blue))
    assert len(is_red) > 10
    assert all(is_red)


def test_drawing_again_changes_nothing(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data")
    before = (folder / "train.json").stat().st_mtime_ns
    draw(folder)
    assert (folder / "train.json").stat().st_mtime_ns == before


def test_other_parameters_or_a_foreign_folder_are_refused(tmp_path: Path) -> None:
    folder = draw(tmp_path / "data")
    with pytest.raises(UserError, match="drawn with other parameters"):
        draw(folder, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        draw(tmp_path / "mine")


def test_an_interrupted_drawing_leaves_nothing_and_starts_over(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synthetic_dataset(tmp_path / "data", buildings=12, images_per_building=3, seed=0, on_progress=interrupt)
    assert not list(tmp_path.iterdir())
    assert draw(tmp_path / "data").exists()


def test_it_is_marked_as_synthetic(tmp_path: Path) -> None:
    assert "Synthetic" in json.loads((draw(tmp_path / "data") / "synthetic.json").read_text())["notice"]


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    """A folder of the name that an earlier version drew into, and wiped."""
    (tmp_path / ".data.partial").mkdir()
    (tmp_path / ".data.partial" / "thesis.tex").write_text("mine")
    draw(tmp_path / "data")
    assert (tmp_path / ".data.partial" / "thesis.tex").read_text() == "mine"


def test_an_empty_folder_is_drawn_into_and_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path / "data")
    inode = (tmp_path / "disk").stat().st_ino
    draw(Path())
    assert sorted(path.name for path in Path().iterdir()) == ["images", "synthetic.json", "test.json", "train.json"]
    assert (tmp_path / "disk").stat().st_ino == inode


def test_a_file_in_the_place_of_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UserError, match="is a file, not a folder"):
        draw(tmp_path / "data")
    assert (tmp_path / "data").read_text() == "mine"


def test_drawn_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = draw(tmp_path / "data")
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path
