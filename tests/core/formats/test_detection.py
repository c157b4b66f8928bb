from pathlib import Path
from typing import Any

import pytest

from core.data.other_formats import Format
from core.errors import UserError
from core.formats.detection import detect
from tests.core.formats.sources import write
from tests.core.formats.test_archives import tar, zipped

KARPATHY = {"images": [{"filename": "a.jpg", "sentences": [], "split": "train"}], "dataset": "x"}
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "id": 2, "caption": "x"}]}
XVLM = [{"image": "a.jpg", "caption": "x", "image_id": 3}]
GEOTEXT = [{"image": "train/1/a.jpg", "caption": "x", "image_id": "1/a.jpg"}]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("dataset_coco.json", KARPATHY, "karpathy"),
        ("captions_train2017.json", COCO, "coco"),
        ("rsicd_train.json", XVLM, "xvlm"),
        ("train.json", GEOTEXT, "geotext"),
        ("a.jsonl", "{}\n", "jsonl"),
        ("a.json", '{"image": "a.jpg", "caption": "x"}\n{"image": "b.jpg"}\n', "jsonl"),
        ("a.tsv", "image\tcaption\n", "csv"),
    ],
)
def test_a_file_is_recognised_alone_and_as_the_only_one_of_its_folder(
    tmp_path: Path, name: str, content: Any, found: Format
) -> None:
    source = write(tmp_path / name, content)
    write(tmp_path / "LICENSE", "mine")
    write(tmp_path / "info.json", {"about": 1})
    assert detect(source).format == found
    detected = detect(tmp_path)
    assert detected.format == found
    assert detected.parts[0][0] in (source, tmp_path)


def test_archives_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    assert detect(tar(tmp_path / "a.tar", {"0.jpg": b"", "0.txt": b""})).format == "webdataset"
    assert detect(zipped(tmp_path / "a.zip", {"GeoText/train.json": b"[]"})).format == "geotext"
    assert detect(tar(tmp_path / "b.tgz", {"train.json": b"[]"}, "w:gz")).format == "geotext"


def test_folders_are_told_by_the_names_in_them(tmp_path: Path) -> None:
    write(tmp_path / "e/Annotations/1.xml", "")
    write(tmp_path / "e/Sentences/1.txt", "")
    assert detect(tmp_path / "e").format == "entities"
    write(tmp_path / "h/dataset_dict.json", {"splits": ["train", "test"]})
    assert [split for _, split in detect(tmp_path / "h").parts] == ["train", "test"]
    write(tmp_path / "s/state.json", {})
    assert detect(tmp_path / "s").parts == ((tmp_path / "s", "train"),)


def test_the_split_of_a_file_is_in_its_name(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write(tmp_path / f"rsicd_{split}.json", XVLM)
    assert sorted(split for _, split in detect(tmp_path).parts) == ["test", "train", "validation"]
    write(tmp_path / "ucm_train.json", XVLM)
    with pytest.raises(UserError, match="holds several files of one split: rsicd_test"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.json": {"x": 1}}, "is of no known format; known are geotext, karpathy, coco"),
        ({"a.json": "[{"}, "is not valid JSON"),
        ({"a.txt": "x"}, "is of no known format"),
        ({"a.arrow": "x"}, "is of no known format, but an Arrow file; name the folder it lies in"),
        ({"a.zip": "x"}, "is not an intact archive"),
        (
            {"a.json": KARPATHY, "b.csv": "image,caption"},
            r"holds files of several formats \(a.json: a Karpathy file;",
        ),
        ({"a.md": "x", "b.json": "{"}, "holds no file of a known format"),
    ],
)
def test_what_is_not_known_is_one_line(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    paths = [write(tmp_path / name, content) for name, content in files.items()]
    with pytest.raises(UserError, match=message):
        detect(paths[0] if len(paths) == 1 else tmp_path)
    with pytest.raises(UserError, match="there is no such file or folder"):
        detect(tmp_path / "gone")


def test_a_named_format_is_not_doubted(tmp_path: Path) -> None:
    write(tmp_path / "a.json", {"x": 1})
    assert detect(tmp_path, "karpathy").parts == ((tmp_path / "a.json", "train"),)
    with pytest.raises(UserError, match="holds no file of the format csv"):
        detect(tmp_path, "csv")
