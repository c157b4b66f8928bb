"""Tests of core.features.recall, by what `read_inputs` makes of it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.config import TrainConfig
from core.errors import UserError
from core.features.inputs import DIGESTS, ImagesOnDemand, read_inputs
from core.files.json_files import read_json


def was_recalled(config: TrainConfig, *, verify: bool = False) -> bool:
    return isinstance(read_inputs(config, verify=verify).images, ImagesOnDemand)


def test_what_did_not_change_is_not_read_and_is_the_same(moved: TrainConfig) -> None:
    first, second = read_inputs(moved), read_inputs(moved)
    assert isinstance(second.images, ImagesOnDemand)
    assert replace(second, images=first.images) == first
    assert dict(second.images) == first.images
    assert first.boxes
    assert first.relations


def another_caption(copy: Path) -> None:
    """A file of equal size and time."""
    path = copy / "train.json"
    stat, content = path.stat(), path.read_text()
    caption = read_json(path)[0]["caption"]
    word = (caption if isinstance(caption, str) else caption[0]).split()[0]
    path.write_text(content.replace(word, word.swapcase(), 1))
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def another_test_file(copy: Path) -> None:
    (copy / "test.json").write_text(json.dumps(read_json(copy / "test.json")[1:]))


def another_image(copy: Path) -> None:
    path = next((copy / "images").rglob("*.jpeg"))
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [another_caption, another_test_file, another_image])
def test_what_changed_is_read_again(copy: Path, moved: TrainConfig, change: Callable[[Path], None]) -> None:
    before = read_inputs(moved).parts
    change(copy)
    after = read_inputs(moved)
    assert not isinstance(after.images, ImagesOnDemand)
    assert after.parts != before
    assert was_recalled(moved)


def test_other_settings_are_read_anew(moved: TrainConfig) -> None:
    read_inputs(moved)
    assert not was_recalled(moved.with_overrides({"data.split_seed": 1}))
    assert was_recalled(moved.with_overrides({"data.train_on": "all"}))


def test_verifying_reads_everything(moved: TrainConfig) -> None:
    read_inputs(moved)
    assert not was_recalled(moved, verify=True)


def test_a_missing_image_is_named_as_ever(copy: Path, moved: TrainConfig) -> None:
    read_inputs(moved)
    path = next((copy / "images").rglob("*.jpeg"))
    path.unlink()
    with pytest.raises(UserError, match=rf"entry .*{path.name} is missing"):
        read_inputs(moved)


def test_a_test_image_that_becomes_a_link_to_a_training_image_is_refused(copy: Path, moved: TrainConfig) -> None:
    source = copy / "images" / read_json(copy / "train.json")[0]["image"]
    target = copy / "images" / read_json(copy / "test.json")[0]["image"]
    shutil.copy(source, target)
    read_inputs(moved)
    target.unlink()
    os.link(source, target)
    with pytest.raises(UserError, match=r"1 of .* images"):
        read_inputs(moved)


def test_annotations_that_change_before_they_are_read_on_demand_are_refused(copy: Path, moved: TrainConfig) -> None:
    read_inputs(moved)
    inputs = read_inputs(moved)
    another_caption(copy)
    with pytest.raises(UserError, match="changed while they were read; run the same command again"):
        len(inputs.images)


def test_a_torn_memory_is_ignored(moved: TrainConfig) -> None:
    before = read_inputs(moved).parts
    for path in (moved.features.store / DIGESTS).glob("*.json"):
        if path.name != "identity.json":
            path.write_bytes(path.read_bytes()[:-20])
    assert not was_recalled(moved)
    assert read_inputs(moved).parts == before
