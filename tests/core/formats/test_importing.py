import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.data.annotations import check_dataset, read_annotations
from core.errors import UserError
from core.formats.conversion import Choices
from core.formats.grouping import Grouping
from core.formats.importing import Options, prepare
from tests.core.formats.sources import draw, import_to, write

SHARED = Path(__file__).parents[4] / "shared" / "data" / "flickr8k-entities"


def source(tmp_path: Path) -> Path:
    draw(tmp_path / "in/images", "a.jpg", "b.jpg", "c.jpg")
    rows = [
        {"image": "a.jpg", "caption": "one", "split": "train", "bbox": [2, 2, 20, 10], "sentence": "p", "house": 1},
        {"image": "b.jpg", "caption": "two", "split": "test", "house": 1},
        {"image": "gone.jpg", "caption": "three", "split": "test", "house": 1},
    ]
    return write(tmp_path / "in/all.jsonl", "\n".join(map(json.dumps, rows)))


def test_a_data_set_is_written_that_passes_its_check(tmp_path: Path) -> None:
    _, imported = import_to(source(tmp_path), tmp_path / "new/out", layout="xywh", copy=True)
    assert imported.splits["train"].regions == 1
    assert imported.findings.dropped == {"image that is missing": 1}
    for name in ("train", "test"):
        counts = check_dataset(tmp_path / f"new/out/{name}.json", tmp_path / "new/out/images")
        assert (counts.images, counts.rejected.total()) == (1, 0)
    assert sorted(path.name for path in (tmp_path / "new").rglob("*")) == [
        "a.jpg", "b.jpg", "images", "out", "test.json", "train.json",
    ]  # fmt: skip


def test_the_plan_says_what_is_read_linked_grouped_and_written(tmp_path: Path) -> None:
    lines = list(prepare(source(tmp_path), tmp_path / "out", Options()).plan())
    assert lines[0].endswith("all.jsonl: a JSON Lines file")
    assert lines[1].startswith(f"images: linked from {tmp_path / 'in'} or {tmp_path / 'in/images'}")
    assert "groups: every image is a group of its own" in lines


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "out/thesis.tex", "mine")
    with pytest.raises(UserError, match="out: is not empty; name another folder"):
        prepare(source(tmp_path), tmp_path / "out", Options())
    with pytest.raises(UserError, match=r"thesis\.tex: is a file, not a folder"):
        prepare(source(tmp_path), tmp_path / "out/thesis.tex", Options())


def test_an_interrupted_import_leaves_nothing_and_the_same_one_then_finishes(tmp_path: Path) -> None:
    planned = prepare(source(tmp_path), tmp_path / "new/out", Options(choices=Choices(layout="xywh")))

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        planned.run(interrupt)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new/out").mkdir(parents=True)  # an empty folder is as good as none
    planned.run()
    assert (tmp_path / "new/out/train.json").exists()


def test_pixels_read_as_fractions_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its boxes were read as fractions, but the box .* looks like pixels"):
        import_to(source(tmp_path), tmp_path / "out", layout="xywh", unit="fractions")
    assert not (tmp_path / "out").exists()


def test_groups_of_both_splits_are_counted(tmp_path: Path) -> None:
    _, imported = import_to(source(tmp_path), tmp_path / "out", layout="xywh", grouping=Grouping(column="house"))
    assert imported.shared_groups == 1


def test_nothing_usable_is_one_line_with_the_first_reason(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", '{"image": "gone.jpg", "caption": "x"}\n')
    with pytest.raises(UserError, match=r"has no record that can be used; the first: .* line 1: image that is missing"):
        import_to(lines, tmp_path / "out")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not on this machine")
def test_real_geotext_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    import_to(SHARED, tmp_path / "out")
    for name in ("train", "test"):
        before = read_annotations(SHARED / f"{name}.json", SHARED / "images").images
        after = read_annotations(tmp_path / f"out/{name}.json", tmp_path / "out/images").images
        assert [replace(image, path=SHARED) for image in after] == [replace(image, path=SHARED) for image in before]
