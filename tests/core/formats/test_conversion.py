from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.formats.conversion import Choices, Conversion, drawn, merged
from core.formats.grouping import Grouping
from core.formats.placing import Images, link
from core.formats.records import Findings, Record, Region
from tests.core.formats.sources import draw


def conversion(tmp_path: Path, **choices: Any) -> Conversion:
    draw(tmp_path / "in", *(f"{folder}/{name}.jpg" for folder in "ab" for name in "xyz"))
    (tmp_path / "out").mkdir()
    return Conversion(Images(tmp_path / "out", [tmp_path / "in"], link, named=False), Choices(**choices), Findings())


def record(image: str, *regions: Region, split: str = "train", **fields: Any) -> Record:
    return Record(f"f: {image}", (image,), (f"of {image}",), split, regions, fields=fields)


def test_every_image_is_its_own_group_even_if_two_paths_look_alike(tmp_path: Path) -> None:
    draw(tmp_path / "in", "a_x.jpg")
    converting = conversion(tmp_path, test_fraction=0)
    for image in ("a/x.jpg", "a_x.jpg", "a/x.jpg"):
        converting.add(record(image))
    ids = [entry["image_id"] for entry in converting.entries("f")["train"]]
    assert ids == ["a_x/x.jpg", "a_x_/a_x.jpg", "a_x/x.jpg"]


def test_a_record_without_a_group_or_of_no_known_split_is_dropped_and_counted(tmp_path: Path) -> None:
    converting = conversion(tmp_path, test_fraction=0, grouping=Grouping(column="house"), split_column="part")
    converting.add(record("a/x.jpg", house=" 7 ", part="train"))
    converting.add(record("a/y.jpg", house=None, part="train"))
    converting.add(record("a/z.jpg", house="7", part="holdout"))
    assert [entry["image_id"] for entry in converting.entries("f")["train"]] == ["7/a/x.jpg"]
    assert converting.findings.dropped == {"record without a group": 1, "record of no known split": 1}
    assert converting.findings.messages[0] == "f: a/y.jpg: record without a group (fields: house, part)"


def test_a_test_split_is_drawn_by_group(tmp_path: Path) -> None:
    converting = conversion(tmp_path, test_fraction=0.5, grouping=Grouping(level=1))
    for image in ("a/x.jpg", "b/x.jpg", "a/y.jpg", "b/y.jpg"):
        converting.add(record(image))
    entries = converting.entries("f")
    assert {len({entry["image_id"].split("/")[0] for entry in found}) for found in entries.values()} == {1}
    assert {len(found) for found in entries.values()} == {2}


@given(st.sets(st.text(max_size=3), min_size=2), st.floats(0.01, 0.9))
def test_the_same_groups_are_drawn_in_any_order_and_some_are_left(groups: set[str], fraction: float) -> None:
    chosen = drawn(sorted(groups), fraction, "f")
    assert chosen == drawn(sorted(groups, reverse=True), fraction, "f")
    assert 0 < len(chosen) < len(groups)


def test_a_source_without_a_test_split_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    converting = conversion(tmp_path)
    converting.add(record("a/x.jpg"))
    with pytest.raises(UserError, match=r"has no test split \(1 records of train\); take one from training with"):
        converting.entries("f")


def test_a_fraction_is_refused_if_there_is_a_test_split(tmp_path: Path) -> None:
    converting = conversion(tmp_path, test_fraction=0.1)
    converting.add(record("a/x.jpg", split="test"))
    with pytest.raises(UserError, match="has a test split of its own; leave out --test-fraction"):
        converting.entries("f")


def test_boxes_in_pixels_are_divided_by_the_size_of_the_image_file(tmp_path: Path) -> None:
    converting = conversion(tmp_path, test_fraction=0, layout="xyxy")
    bad = [Region("bad", "1,2,3,4"), Region("empty", [5, 5, 5, 9])]
    converting.add(record("a/x.jpg", Region("p", [0, 0, 20, 20]), *bad))  # of 40 × 20
    (entry,) = converting.entries("f")["train"]
    assert (entry["sentences"], entry["bboxes"]) == (["p"], [[0.25, 0.5, 0.5, 1.0]])
    assert converting.findings.dropped == {"box that is not four numbers": 1, "box without area": 1}


def test_further_test_sets_keep_their_names(tmp_path: Path) -> None:
    converting = conversion(tmp_path)
    for split in ("testA", "test_24G_version", "test/../x"):
        converting.add(record("a/x.jpg", split=split))
    assert list(converting.entries("f")) == ["testA", "test_24G_version"]


def test_merging_joins_captions_and_keeps_each_region_once() -> None:
    region: dict[str, Any] = {"sentences": ["p"], "bboxes": [[0.5, 0.5, 0.1, 0.1]]}
    image = {"image_id": "a/x", "image": "x"}
    entries = [{**image, "caption": "1"} | region, {**image, "caption": "2", "relations": ["left"]} | region]
    (entry,) = merged(entries)
    assert entry["caption"] == ["1", "2"]
    assert entry["sentences"] == ["p", "p"]
    assert entry["relations"] == [None, "left"]
    assert merged([entries[0], entries[0]])[0]["sentences"] == ["p"]
