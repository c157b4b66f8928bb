"""Published data sets of which one thing is broken: nothing of them is imported."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.commands import CommandLine
from tests.core.formats.sources import draw, jpeg, write
from tests.hostile.refusal import assert_refused

Make = Callable[[Path], Path]
"""Makes a source below a folder in which images/a.jpg lies; returns what is imported."""
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
KARPATHY = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "a pool"}]}


def file(name: str, content: Any) -> Make:
    def make(folder: Path) -> Path:
        if not isinstance(content, bytes):
            return write(folder / name, content)
        (folder / name).write_bytes(content)
        return folder / name

    return make


def folder_of(**files: Any) -> Make:
    """A folder of JSON or text files; `__` stands for a dot."""

    def make(folder: Path) -> Path:
        for name, content in files.items():
            write(folder / "source" / name.replace("__", "."), content)
        return folder / "source"

    return make


def karpathy(**fields: Any) -> Make:
    return file("dataset.json", {"images": [{**KARPATHY, **fields}]})


def coco(images: Any, annotations: Any) -> Make:
    return file("captions_train2017.json", {"images": images, "annotations": annotations})


def tar(name: str, files: dict[str, bytes], kept: int | None = None) -> Make:
    """An archive of these files, or the first bytes of it."""

    def make(folder: Path) -> Path:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz" if name.endswith("gz") else "w") as archive:
            for member, content in files.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        (folder / name).write_bytes(stream.getvalue()[:kept])
        return folder / name

    return make


def zipped(name: str, files: dict[str, str]) -> Make:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for member, content in files.items():
                archive.writestr(member, content)
        return folder / name

    return make


def arrow(state: Any, data: bytes | None = None) -> Make:
    def make(folder: Path) -> Path:
        write(folder / "saved" / "state.json", state)
        if data is not None:
            (folder / "saved" / "data.arrow").write_bytes(data)
        return folder / "saved"

    return make


def arrow_stream(rows: dict[str, list[Any]]) -> bytes:
    stream, table = io.BytesIO(), pa.table(rows)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def entities(sentence: str | bytes, annotation: str | None = None, **lists: str | bytes) -> Make:
    def make(folder: Path) -> Path:
        source = folder / "flickr"
        for name in ("Sentences", "Annotations"):
            (source / name).mkdir(parents=True)
        encoded = {"Sentences/a.txt": sentence, **{f"{name}.txt": content for name, content in lists.items()}}
        if annotation is not None:
            encoded["Annotations/a.xml"] = annotation
        for name, content in encoded.items():
            (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return source

    return make


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.csv")
    return folder / "pipe.csv"


def a_link_to_itself(folder: Path) -> Path:
    (folder / "loop.json").symlink_to(folder / "loop.json")
    return folder / "loop.json"


NAMED = {"_data_files": [{"filename": "data.arrow"}]}
SOURCES: dict[str, tuple[Make, list[str], str]] = {
    "nothing": (lambda folder: folder / "gone.json", [], "there is no such file or folder"),
    "an empty folder": (
        folder_of(), [], "holds no file of a known format; known are geotext, karpathy, coco, xvlm, jsonl,",
    ),
    "a folder of other files": (
        folder_of(README__md="mine", notes__txt="mine"), [],
        "holds no file of a known format; known are geotext, karpathy, coco, xvlm, jsonl,",
    ),
    "a folder of several formats": (
        folder_of(a__csv="image,caption\n", b__jsonl="{}\n"), [],
        "holds files of several formats (a.csv: a table; b.jsonl: a JSON Lines file); name",
    ),
    "a folder without what was named": (
        folder_of(a__csv="image,caption\n"), ["--format", "coco"],
        "holds no file of the format coco; leave out --format, or name another folder",
    ),
    "two files of one split": (
        folder_of(a__json={"images": [KARPATHY]}, b__json={"images": [KARPATHY]}), [],
        "holds several files of one split: a.json, b.json; name one of them, or put those of",
    ),
    "an unknown file": (
        file("notes.xyz", "mine"), [], "is of no known format; known are geotext, karpathy, coco, xvlm, jsonl, csv,",
    ),
    "an empty file": (file("a.json", b""), [], "is empty"),
    "a picture": (
        lambda folder: folder / "images" / "a.jpg", [],
        "is of no known format; known are geotext, karpathy, coco, xvlm, jsonl, csv,",
    ),
    "a pipe": (a_pipe, [], "is not a regular file"),
    "a link to itself": (a_link_to_itself, [], "there is no such file or folder"),
    "half a JSON file": (file("a.json", b'{"images": [{"filen'), [], "is not valid JSON ("),
    "a Git LFS pointer": (
        file("a.json", LFS_POINTER), [], "is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "JSON of another kind": (
        file("a.json", {"model": "gpt"}), [],
        "is of no known format; known are geotext, karpathy, coco, xvlm, jsonl, csv,",
    ),
    "a list of numbers": (
        file("a.json", [1, 2]), [], "is of no known format; known are geotext, karpathy, coco, xvlm, jsonl, csv,",
    ),
    "too deep a list": (file("a.json", b"[" * 100_000), [], "is nested too deeply to be read"),
    "UTF-16": (file("a.json", '{"images": []}'.encode("utf-16")), [], "is UTF-16 text, not UTF-8; save it as UTF-8"),
    "Karpathy without images": (file("a.json", {"images": []}), ["--format", "karpathy"], "holds no record"),
    "Karpathy of a list": (
        file("a.json", [KARPATHY]), ["--format", "karpathy"], "has no list of images, as a Karpathy file has",
    ),
    "Karpathy images that are text": (
        file("a.json", {"images": "a.jpg"}), ["--format", "karpathy"], "has no list of images, as a Karpathy file has",
    ),
    "Karpathy without captions": (karpathy(sentences=[]), [], "image 0: record without a caption"),
    "Karpathy captions that are numbers": (karpathy(sentences=[1, 2]), [], "image 0: caption that is not text (1)"),
    "Karpathy without an image file": (karpathy(filename="gone.jpg"), [], "image 0: image that is missing (gone.jpg)"),
    "Karpathy with an image above the root": (
        karpathy(filename="../../etc/passwd"), [], "image 0: image outside the folders of images (../../etc/passwd)",
    ),
    "Karpathy with an image elsewhere": (
        karpathy(filename="/etc/passwd"), [], "image 0: image outside the folders of images (/etc/passwd)",
    ),
    "Karpathy with a null byte": (
        karpathy(filename="a\0.jpg"), [], "image 0: image outside the folders of images (a\\x00.jpg)",
    ),
    "Karpathy with half a surrogate pair": (
        karpathy(filename="a\ud800.jpg"), [],
        "image 0: image that has a name that no file can have ('utf-8' codec can't encode",
    ),
    "Karpathy with a name that is too long": (
        karpathy(filename="x" * 5000), [], "image 0: image that cannot be reached (",
    ),
    "Karpathy with the split of a path": (
        karpathy(split="../../train"), [], "image 0: record of no known split (../../train)",
    ),
    "COCO without annotations": (
        coco([{"id": 1, "file_name": "a.jpg"}], []), ["--format", "coco"], "image 0: record without a caption",
    ),
    "COCO whose captions name no image": (
        coco([{"id": 1, "file_name": "a.jpg"}], [{"image_id": 2, "caption": "a pool"}]), [],
        "image 0: record without a caption",
    ),
    "COCO without images": (
        coco([], [{"image_id": 2, "caption": "a pool"}]), [],
        "captions of an image that is not listed (1 of image_id 2)",
    ),
    "COCO of objects": (
        coco({}, {}), ["--format", "coco"], "has no lists of images and annotations, as a COCO file has",
    ),
    "a list without captions": (file("a.json", [{"image": "a.jpg"}]), [], "entry 0: record without a caption"),
    "a list of other images": (
        file("a.json", [{"image": "gone.jpg", "caption": "a pool"}]), [], "entry 0: image that is missing (gone.jpg)",
    ),
    "a list of text": (file("a.json", ["a.jpg"]), ["--format", "xvlm"], "entry 0: record that is not an object"),
    "GeoText without captions": (
        file("train.json", [{"image_id": "0001/a", "image": "a.jpg"}]), [], "entry 0: record without a caption",
    ),
    "GeoText without its images": (
        file("train.json", [{"image_id": "0001/a", "image": "train/gone.jpg", "caption": "a pool"}]), [],
        "entry 0: image that is missing (train/gone.jpg)",
    ),
    "a zip without annotations": (
        zipped("a.zip", {"notes.txt": "mine"}), [],
        "is a zip without train.json or test.json; unpack it, name its folder",
    ),
    "a zip of broken annotations": (zipped("a.zip", {"train.json": "{"}), [], "is not valid JSON ("),
    "half a zip": (file("a.zip", b"PK\3\4" + b"\0" * 40), [], "is not an intact archive ("),
    "JSON Lines of text": (file("a.jsonl", "one\ntwo\n"), [], "line 1: line that is not JSON (is not valid JSON ("),
    "JSON Lines of lists": (file("a.jsonl", "[1]\n[2]\n"), [], "line 1: record that is not an object"),
    "JSON Lines without images": (
        file("a.jsonl", '{"caption": "a"}\n{"caption": "b"}\n'), [], "line 1: record without an image",
    ),
    "JSON Lines of bytes": (
        file("a.jsonl", b"\xff\xfe\0\n\0\n"), [], "line 1: line that is not JSON (is UTF-16 text, not UTF-8)",
    ),
    "JSON Lines that are a Git LFS pointer": (
        file("a.jsonl", LFS_POINTER), [], "is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "an empty table": (file("a.csv", b""), [], "has an empty first line; name the columns in it"),
    "a table with an empty first line": (
        file("a.csv", "\nimage,caption\n"), [], "has an empty first line; name the columns in it",
    ),
    "a table with its names alone": (file("a.csv", "image,caption\n"), [], "holds no record"),
    "a table without images": (
        file("a.csv", "id,caption\n1,a\n"), [],
        "has no column of images; its columns are id, caption; name the column",
    ),
    "a table without captions": (
        file("a.csv", "image,label\na.jpg,1\n"), [],
        "has no column of captions; its columns are image, label; name the column",
    ),
    "a table with a column twice": (
        file("a.csv", "image,caption,caption\na.jpg,b,c\n"), [], "names the column 'caption' twice",
    ),
    "a table in Latin-1": (
        file("a.csv", "image,caption\na.jpg,caf\xe9\n".encode("latin-1")), [],
        "is not UTF-8 text (byte 23); save it as UTF-8",
    ),
    "a table with a huge cell": (
        file("a.csv", "image,caption\na.jpg," + "x" * 200_000 + "\n"), [],
        "is not a table (field larger than field limit (131072))",
    ),
    "a table whose lines are short": (
        file("a.csv", "image,caption\na.jpg\n"), [],
        "line 2: line with another number of cells than the first (1, not 2)",
    ),
    "a table that is a Git LFS pointer": (
        file("a.csv", LFS_POINTER), [], "is a Git LFS pointer, not the file itself; run git lfs pull",
    ),
    "a column of splits that is not there": (
        file("a.csv", "image,caption\na.jpg,a pool\n"), ["--split-column", "fold"],
        "line 2: record of no known split (fields: image, caption)",
    ),
    "a column of groups that is not there": (
        file("a.csv", "image,caption\na.jpg,a pool\n"), ["--group", "column:place"],
        "line 2: record without a group (fields: image, caption)",
    ),
    "groups of another kind": (
        file("a.csv", "image,caption\na.jpg,a\n"), ["--group", "place"],
        "--group: place is no grouping; write none, column:NAME or folder:N (-1: the last)",
    ),
    "groups of a folder that is no number": (
        file("a.csv", "image,caption\na.jpg,a\n"), ["--group", "folder:x"],
        "--group: folder:x is no grouping; write none, column:NAME or folder:N (-1: the last)",
    ),
    "groups of too deep a folder": (
        file("a.csv", "image,caption\na.jpg,a\n"), ["--group", "folder:7"], "line 2: record without a group (a.jpg)",
    ),
    "images that are not there": (
        file("a.csv", "image,caption\na.jpg,a\n"), ["--images", "gone"],
        "gone: there is no such folder of images; name it with --images",
    ),
    "a share of one group for a test": (
        file("a.csv", "image,caption\na.jpg,a\n"), ["--test-fraction", "0.5"],
        "has 1 groups to train on, of which none can be spared for testing; group images otherwise with",
    ),
    "Entities without sentences": (entities(""), [], "holds no record"),
    "Entities with open brackets": (
        entities("[/EN#1/people a man is here\n"), [], "line 1: line whose brackets do not close",
    ),
    "Entities in Latin-1": (entities("caf\xe9\n".encode("latin-1")), [], "image whose files cannot be read ("),
    "Entities with half an XML file": (
        entities("a man\n", "<annotation><object>"), [], "image whose files cannot be read (",
    ),
    "Entities that expand endlessly": (
        entities("a man\n", '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'), [],
        "image whose files cannot be read (",
    ),
    "Entities with a list of bytes": (entities("a man\n", None, train=b"\xff\xfe"), [], "is not UTF-8 text (byte 0)"),
    "an empty tar": (file("a.tar", b""), [], "is not an intact archive ("),
    "text called a tar": (file("a.tar", "mine"), [], "is not an intact archive ("),
    "half a tar": (tar("a.tar", {"1.jpg": jpeg(), "1.txt": b"a pool"}, kept=700), [], "is not an intact archive ("),
    "half a compressed tar": (
        tar("a.tar.gz", {"1.jpg": jpeg(), "1.txt": b"a pool"}, kept=200), [], "is not an intact archive (",
    ),
    "a tar without texts": (tar("a.tar", {"1.jpg": jpeg()}), [], "sample 1: record without a caption"),
    "a tar without images": (tar("a.tar", {"1.txt": b"a pool"}), [], "sample 1: sample without an image"),
    "a tar with a path above": (
        tar("a.tar", {"../../1.jpg": b"mine", "../../1.txt": b"a pool"}), [],
        "sample ../../1: image outside the folders of images (../../1.jpg)",
    ),
    "a tar that is a Git LFS pointer": (
        file("a.tar", LFS_POINTER), [], "is a Git LFS pointer, not the archive itself; run git lfs pull",
    ),
    "Arrow without files": (arrow({"_data_files": []}), [], "does not name the Arrow files beside it"),
    "Arrow of another kind": (arrow([1]), [], "does not name the Arrow files beside it"),
    "Arrow with a file above": (
        arrow({"_data_files": [{"filename": "../data.arrow"}]}), [], "does not name the Arrow files beside it",
    ),
    "Arrow with a file that is not there": (arrow(NAMED), [], "is missing"),
    "Arrow with text": (arrow(NAMED, b"mine"), [], "is not an intact Arrow stream ("),
    "half of an Arrow file": (
        arrow(NAMED, arrow_stream({"image": ["a.jpg"], "caption": ["a"]})[:300]), [], "is not an intact Arrow stream (",
    ),
    "Arrow without captions": (
        arrow(NAMED, arrow_stream({"image": ["a.jpg"], "label": [1]})), [],
        "has no column of captions; its columns are image, label; name the column",
    ),
    "an Arrow file alone": (
        file("a.arrow", arrow_stream({"image": ["a.jpg"]})), [],
        "is of no known format, but an Arrow file; name the folder it lies in",
    ),
    "a parquet file": (
        file("a.parquet", b"PAR1PAR1"), [],
        "is of no known format; known are geotext, karpathy, coco, xvlm, jsonl, csv,",
    ),
    "Arrow splits that are a path": (
        folder_of(dataset_dict__json={"splits": ["../train"]}), [], "does not name the splits beside it",
    ),
    "Arrow splits that are not there": (
        folder_of(dataset_dict__json={"splits": ["train"]}), [], "there is no such file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "options", "expected"), SOURCES.values(), ids=SOURCES.keys())
def test_a_broken_source(
    crossmodal: CommandLine, tmp_path: Path, make: Make, options: list[str], expected: str
) -> None:
    draw(tmp_path, "images/a.jpg")
    source = make(tmp_path)
    source.mkdir(exist_ok=True) if source.name == "source" else None
    assert_refused(crossmodal, tmp_path, expected, "data", "import", source, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def a_file_that_is_there(folder: Path) -> None:
    (folder / "out").write_text("mine")


def a_folder_with_a_thesis(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")


OUTPUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file": (a_file_that_is_there, "is a file, not a folder; name another folder"),
    "a folder that is not empty": (a_folder_with_a_thesis, "is not empty; name another folder"),
}


@pytest.mark.parametrize(("occupy", "expected"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_a_place_that_is_not_free(
    crossmodal: CommandLine, tmp_path: Path, occupy: Callable[[Path], None], expected: str
) -> None:
    draw(tmp_path, "images/a.jpg")
    occupy(tmp_path)
    source = write(tmp_path / "a.json", json.dumps({"images": [KARPATHY]}))
    assert_refused(crossmodal, tmp_path, expected, "data", "import", source, tmp_path / "out")
