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
    "nothing": (lambda folder: folder / "gone.json", [], "?"),
    "an empty folder": (folder_of(), [], "?"),
    "a folder of other files": (folder_of(README__md="mine", notes__txt="mine"), [], "?"),
    "a folder of several formats": (folder_of(a__csv="image,caption\n", b__jsonl="{}\n"), [], "?"),
    "a folder without what was named": (folder_of(a__csv="image,caption\n"), ["--format", "coco"], "?"),
    "two files of one split": (
        folder_of(a__json={"images": [KARPATHY]}, b__json={"images": [KARPATHY]}), [], "?",
    ),
    "an unknown file": (file("notes.xyz", "mine"), [], "?"),
    "an empty file": (file("a.json", b""), [], "?"),
    "a picture": (lambda folder: folder / "images" / "a.jpg", [], "?"),
    "a pipe": (a_pipe, [], "?"),
    "a link to itself": (a_link_to_itself, [], "?"),
    "half a JSON file": (file("a.json", b'{"images": [{"filen'), [], "?"),
    "a Git LFS pointer": (file("a.json", LFS_POINTER), [], "?"),
    "JSON of another kind": (file("a.json", {"model": "gpt"}), [], "?"),
    "a list of numbers": (file("a.json", [1, 2]), [], "?"),
    "too deep a list": (file("a.json", b"[" * 100_000), [], "?"),
    "UTF-16": (file("a.json", '{"images": []}'.encode("utf-16")), [], "?"),
    "Karpathy without images": (file("a.json", {"images": []}), ["--format", "karpathy"], "?"),
    "Karpathy of a list": (file("a.json", [KARPATHY]), ["--format", "karpathy"], "?"),
    "Karpathy images that are text": (file("a.json", {"images": "a.jpg"}), ["--format", "karpathy"], "?"),
    "Karpathy without captions": (karpathy(sentences=[]), [], "?"),
    "Karpathy captions that are numbers": (karpathy(sentences=[1, 2]), [], "?"),
    "Karpathy without an image file": (karpathy(filename="gone.jpg"), [], "?"),
    "Karpathy with an image above the root": (karpathy(filename="../../etc/passwd"), [], "?"),
    "Karpathy with an image elsewhere": (karpathy(filename="/etc/passwd"), [], "?"),
    "Karpathy with a null byte": (karpathy(filename="a\0.jpg"), [], "?"),
    "Karpathy with half a surrogate pair": (karpathy(filename="a\ud800.jpg"), [], "?"),
    "Karpathy with a name that is too long": (karpathy(filename="x" * 5000), [], "?"),
    "Karpathy with the split of a path": (karpathy(split="../../train"), [], "?"),
    "COCO without annotations": (coco([{"id": 1, "file_name": "a.jpg"}], []), ["--format", "coco"], "?"),
    "COCO whose captions name no image": (
        coco([{"id": 1, "file_name": "a.jpg"}], [{"image_id": 2, "caption": "a pool"}]), [], "?",
    ),
    "COCO without images": (coco([], [{"image_id": 2, "caption": "a pool"}]), [], "?"),
    "COCO of objects": (coco({}, {}), ["--format", "coco"], "?"),
    "a list without captions": (file("a.json", [{"image": "a.jpg"}]), [], "?"),
    "a list of other images": (file("a.json", [{"image": "gone.jpg", "caption": "a pool"}]), [], "?"),
    "a list of text": (file("a.json", ["a.jpg"]), ["--format", "xvlm"], "?"),
    "GeoText without captions": (
        file("train.json", [{"image_id": "0001/a", "image": "a.jpg"}]), [], "?",
    ),
    "GeoText without its images": (
        file("train.json", [{"image_id": "0001/a", "image": "train/gone.jpg", "caption": "a pool"}]), [], "?",
    ),
    "a zip without annotations": (zipped("a.zip", {"notes.txt": "mine"}), [], "?"),
    "a zip of broken annotations": (zipped("a.zip", {"train.json": "{"}), [], "?"),
    "half a zip": (file("a.zip", b"PK\3\4" + b"\0" * 40), [], "?"),
    "JSON Lines of text": (file("a.jsonl", "one\ntwo\n"), [], "?"),
    "JSON Lines of lists": (file("a.jsonl", "[1]\n[2]\n"), [], "?"),
    "JSON Lines without images": (file("a.jsonl", '{"caption": "a"}\n{"caption": "b"}\n'), [], "?"),
    "JSON Lines of bytes": (file("a.jsonl", b"\xff\xfe\0\n\0\n"), [], "?"),
    "JSON Lines that are a Git LFS pointer": (file("a.jsonl", LFS_POINTER), [], "?"),
    "an empty table": (file("a.csv", b""), [], "?"),
    "a table with an empty first line": (file("a.csv", "\nimage,caption\n"), [], "?"),
    "a table with its names alone": (file("a.csv", "image,caption\n"), [], "?"),
    "a table without images": (file("a.csv", "id,caption\n1,a\n"), [], "?"),
    "a table without captions": (file("a.csv", "image,label\na.jpg,1\n"), [], "?"),
    "a table with a column twice": (file("a.csv", "image,caption,caption\na.jpg,b,c\n"), [], "?"),
    "a table in Latin-1": (file("a.csv", "image,caption\na.jpg,caf\xe9\n".encode("latin-1")), [], "?"),
    "a table with a huge cell": (file("a.csv", "image,caption\na.jpg," + "x" * 200_000 + "\n"), [], "?"),
    "a table whose lines are short": (file("a.csv", "image,caption\na.jpg\n"), [], "?"),
    "a table that is a Git LFS pointer": (file("a.csv", LFS_POINTER), [], "?"),
    "a column of splits that is not there": (
        file("a.csv", "image,caption\na.jpg,a pool\n"), ["--split-column", "fold"], "?",
    ),
    "a column of groups that is not there": (
        file("a.csv", "image,caption\na.jpg,a pool\n"), ["--group", "column:place"], "?",
    ),
    "groups of another kind": (file("a.csv", "image,caption\na.jpg,a\n"), ["--group", "place"], "?"),
    "groups of a folder that is no number": (file("a.csv", "image,caption\na.jpg,a\n"), ["--group", "folder:x"], "?"),
    "groups of too deep a folder": (file("a.csv", "image,caption\na.jpg,a\n"), ["--group", "folder:7"], "?"),
    "images that are not there": (file("a.csv", "image,caption\na.jpg,a\n"), ["--images", "gone"], "?"),
    "a share of one group for a test": (file("a.csv", "image,caption\na.jpg,a\n"), ["--test-fraction", "0.5"], "?"),
    "Entities without sentences": (entities(""), [], "?"),
    "Entities with open brackets": (entities("[/EN#1/people a man is here\n"), [], "?"),
    "Entities in Latin-1": (entities("caf\xe9\n".encode("latin-1")), [], "?"),
    "Entities with half an XML file": (entities("a man\n", "<annotation><object>"), [], "?"),
    "Entities that expand endlessly": (
        entities("a man\n", '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'), [], "?",
    ),
    "Entities with a list of bytes": (entities("a man\n", None, train=b"\xff\xfe"), [], "?"),
    "an empty tar": (file("a.tar", b""), [], "?"),
    "text called a tar": (file("a.tar", "mine"), [], "?"),
    "half a tar": (tar("a.tar", {"1.jpg": jpeg(), "1.txt": b"a pool"}, kept=700), [], "?"),
    "half a compressed tar": (tar("a.tar.gz", {"1.jpg": jpeg(), "1.txt": b"a pool"}, kept=200), [], "?"),
    "a tar without texts": (tar("a.tar", {"1.jpg": jpeg()}), [], "?"),
    "a tar without images": (tar("a.tar", {"1.txt": b"a pool"}), [], "?"),
    "a tar with a path above": (tar("a.tar", {"../../1.jpg": b"mine", "../../1.txt": b"a pool"}), [], "?"),
    "a tar that is a Git LFS pointer": (file("a.tar", LFS_POINTER), [], "?"),
    "Arrow without files": (arrow({"_data_files": []}), [], "?"),
    "Arrow of another kind": (arrow([1]), [], "?"),
    "Arrow with a file above": (arrow({"_data_files": [{"filename": "../data.arrow"}]}), [], "?"),
    "Arrow with a file that is not there": (arrow(NAMED), [], "?"),
    "Arrow with text": (arrow(NAMED, b"mine"), [], "?"),
    "half of an Arrow file": (arrow(NAMED, arrow_stream({"image": ["a.jpg"], "caption": ["a"]})[:300]), [], "?"),
    "Arrow without captions": (arrow(NAMED, arrow_stream({"image": ["a.jpg"], "label": [1]})), [], "?"),
    "an Arrow file alone": (file("a.arrow", arrow_stream({"image": ["a.jpg"]})), [], "?"),
    "a parquet file": (file("a.parquet", b"PAR1PAR1"), [], "?"),
    "Arrow splits that are a path": (folder_of(dataset_dict__json={"splits": ["../train"]}), [], "?"),
    "Arrow splits that are not there": (folder_of(dataset_dict__json={"splits": ["train"]}), [], "?"),
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
