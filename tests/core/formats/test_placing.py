from pathlib import Path

import pytest

from core.errors import UserError
from core.formats.placing import Images, copy, image_roots, link
from core.formats.records import Findings, Record
from tests.core.formats.sources import draw


def record(*names: str, content: bytes | None = None) -> Record:
    return Record("a.csv: line 2", names, ("x",), "train", content=content)


def images(tmp_path: Path) -> Images:
    draw(tmp_path / "in", "a.jpg", "sub/b.jpg")
    (tmp_path / "out").mkdir()
    return Images(tmp_path / "out", [tmp_path / "in"], link, named=False)


def test_images_are_linked_or_copied_once(tmp_path: Path) -> None:
    placing, findings = images(tmp_path), Findings()
    assert [placing.place(record("sub/b.jpg"), findings) for _ in range(2)] == ["sub/b.jpg"] * 2
    assert (tmp_path / "out/sub/b.jpg").readlink() == tmp_path / "in/sub/b.jpg"
    copying = Images(tmp_path / "out", [tmp_path / "in"], copy, named=False)
    assert copying.place(record("a.jpg"), findings) == "a.jpg"
    assert not (tmp_path / "out/a.jpg").is_symlink()


def test_other_names_and_windows_paths_are_tried_and_folders_left_out_if_the_user_named_one(tmp_path: Path) -> None:
    placing, findings = images(tmp_path), Findings()
    assert placing.place(record("b.jpg", "sub/b.jpg"), findings) == "b.jpg"
    assert placing.place(record("sub\\b.jpg"), findings) == "sub\\b.jpg"
    assert placing.place(record("test/a.jpg"), findings) is None
    placing.named = True
    assert placing.place(record("test/a.jpg"), findings) == "test/a.jpg"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone.jpg", "image that is missing"),
        ("sub", "image that is a folder"),
        ("../in/a.jpg", "image outside the folders of images"),
        ("/etc/passwd", "image outside the folders of images"),
        (".", "image outside the folders of images"),
        ("a\0.jpg", "image outside the folders of images"),
    ],
)
def test_an_image_that_is_not_there_or_outside_is_a_counted_drop(tmp_path: Path, name: str, what: str) -> None:
    placing, findings = images(tmp_path), Findings()
    assert placing.place(record(name), findings) is None
    assert findings.dropped == {what: 1}


def test_bytes_are_written_and_impossible_paths_dropped(tmp_path: Path) -> None:
    placing, findings = images(tmp_path), Findings()
    assert placing.place(record("x/y.jpg", content=b"1"), findings) == "x/y.jpg"
    assert (tmp_path / "out/x/y.jpg").read_bytes() == b"1"
    for name in ("x/y.jpg/z.jpg", "n" * 300, "x", "\ud800.jpg"):
        assert placing.place(record(name, content=b"1"), findings) is None
    assert findings.dropped == {"image whose path no file can have": 4}


def test_an_absolute_path_below_the_folder_is_one_below_it(tmp_path: Path) -> None:
    assert images(tmp_path).place(record(str(tmp_path / "in/a.jpg")), Findings()) == "a.jpg"


def test_images_are_looked_for_around_the_source(tmp_path: Path) -> None:
    draw(tmp_path / "coco", "train2017/a.jpg", "images/b.jpg", "annotations/x")
    roots = image_roots(tmp_path / "coco/annotations/x", None)
    assert roots == [tmp_path / "coco/annotations", tmp_path / "coco", tmp_path / "coco/images"]
    with pytest.raises(UserError, match="there is no such folder of images; name it with --images"):
        image_roots(tmp_path, tmp_path / "gone")
