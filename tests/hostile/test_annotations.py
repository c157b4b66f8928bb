"""Annotation files of which one thing is broken."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.config import TrainConfig
from core.files.json_files import read_json
from tests.commands import CommandLine
from tests.hostile.refusal import Change, assert_refused, write_config

BOX = [0.5, 0.5, 0.2, 0.2]
NOT_FINITE = "bboxes[0]: contains values that are not finite numbers"


def regions(**fields: Any) -> Change:
    """Replace fields of entry 2, which has one region unless they say otherwise."""
    return lambda entries: entries[2].update({"sentences": ["a pool"], "bboxes": [BOX], **fields})


def field(**fields: Any) -> Change:
    return lambda entries: entries[2].update(fields)


ENTRIES: dict[str, tuple[Change, str]] = {
    "an entry that is text": (lambda e: e.__setitem__(2, "train/0001.jpeg"), "entry 2: is not an object but text"),
    "an entry that is null": (lambda e: e.__setitem__(2, None), "entry 2: is not an object but null"),
    "an entry that is a list": (lambda e: e.__setitem__(2, []), "entry 2: is not an object but a list"),
    "no image": (lambda e: e[2].pop("image"), "has no image"),
    "a blank image": (field(image="  "), "has no image"),
    "an image that is a number": (field(image=7), "image must be text, not a number"),
    "an image that is a list": (field(image=["a.jpeg"]), "image must be text, not a list"),
    "an absent image": (field(image="train/gone.jpeg"), "the image train/gone.jpeg"),
    "an image above the root": (field(image="../train.json"), "is outside"),
    "an image elsewhere": (field(image="/etc/passwd"), "is outside"),
    "an image that is a folder": (field(image="train"), "the image train"),
    "a path with a null byte": (field(image="train/\0.jpeg"), "the image train/\\x00.jpeg"),
    "a path that is too long": (field(image="x" * 5000), "the image xxx"),
    "an image_id that is a list": (field(image_id=["a"]), "image_id must be text or an integer"),
    "an image_id that is true": (field(image_id=True), "image_id must be text or an integer, not True"),
    "an image_id that is a fraction": (field(image_id=1.5), "image_id must be text or an integer, not 1.5"),
    "no caption": (lambda e: e[2].pop("caption"), "has no caption"),
    "an empty caption": (field(caption=""), "has no caption"),
    "captions that are all empty": (field(caption=["", None, "  "]), "has no caption"),
    "a caption that is a number": (field(caption=3), "caption must be text, not a number"),
    "a caption that is an object": (field(caption={"en": "a pool"}), "caption must be text, not an object"),
    "half a surrogate pair": (field(caption="a pool \ud83d"), "half of a surrogate pair"),
    "more sentences than boxes": (regions(sentences=["a", "b"]), "has 2 sentences, 1 bboxes"),
    "more relations than boxes": (regions(relations=["left", "left"]), "2 relations"),
    "sentences that are text": (regions(sentences="a pool"), "must be lists"),
    "boxes that are an object": (regions(bboxes={"0": BOX}), "must be lists"),
    "a box of three numbers": (regions(bboxes=[[0.1, 0.2, 0.3]]), "bboxes[0]: has 3 numbers instead of 4"),
    "a box of five numbers": (regions(bboxes=[[0.1] * 5]), "bboxes[0]: has 5 numbers instead of 4"),
    "a box of text": (regions(bboxes=[["a", "b", "c", "d"]]), NOT_FINITE),
    "a box of booleans": (regions(bboxes=[[True, True, True, True]]), NOT_FINITE),
    "a box that is text": (regions(bboxes=["0.5 0.5 0.2 0.2"]), "bboxes[0]"),
    "a box with NaN": (regions(bboxes=[[0.5, 0.5, float("nan"), 0.2]]), NOT_FINITE),
    "a box with infinity": (regions(bboxes=[[0.5, 0.5, float("inf"), 0.2]]), NOT_FINITE),
    "a box of pixels": (regions(bboxes=[[56, 56, 20, 20]]), "looks like pixels"),
    "an unknown relation": (regions(relations=["beneath"]), "relations[0]: 'beneath' is not one of left, right, above"),
    "a relation that is a number": (regions(relations=[3]), "relations[0]: '3' is not one of left, right, above"),
    "a sentence that is a number": (regions(sentences=[3]), "sentences[0] must be text"),
    "one image_id for two images": (
        lambda e: e[0].update(image_id=e[-1]["image_id"]), "give each image an image_id of its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), ENTRIES.values(), ids=ENTRIES.keys())
def test_a_broken_entry(
    crossmodal: CommandLine, demo: Path, demo_config: TrainConfig, tmp_path: Path, change: Change, expected: str
) -> None:
    entries = read_json(demo / "train.json")
    change(entries)
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(entries))
    config = write_config(tmp_path, demo_config, lambda content: content["data"].update(train_annotations=str(file)))
    assert_refused(crossmodal, tmp_path, expected, "features", "extract", "--config", config)


FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "an empty list": (b"[]", "holds no entry"),
    "an object": (b"{}", "is not a list of entries"),
    "a number": (b"3", "is not a list of entries"),
    "null": (b"null", "is not a list of entries"),
    "half a list": (b'[{"image_id": "a", "ima', "is not valid JSON"),
    "a trailing comma": (b'[{"image": "a.jpeg"},]', "is not valid JSON"),
    "YAML": (b"- image: a.jpeg\n", "is not valid JSON"),
    "bytes that are no text": (b"\xff\xfe\x00[", "is UTF-16 text, not UTF-8; save it as UTF-8"),
    "Latin-1": ('[{"caption": "caf\xe9"}]'.encode("latin-1"), "is not UTF-8 text (byte 17)"),
    "too deep a list": (b"[" * 100_000, "is nested too deeply to be read"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not UTF-8 text (byte 0)"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer, not the file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("written", "expected"), FILES.values(), ids=FILES.keys())
def test_a_broken_file(
    crossmodal: CommandLine, demo_config: TrainConfig, tmp_path: Path, written: bytes, expected: str
) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(written)
    config = write_config(tmp_path, demo_config, lambda content: content["data"].update(train_annotations=str(file)))
    assert_refused(crossmodal, tmp_path, expected, "features", "extract", "--config", config)
