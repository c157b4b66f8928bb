"""GeoText-1652 as published: train.json, test files and images in a folder, in one archive, or partly in archives.

The authors' cloud folder is a zip with `train/`, `test/` and the JSON files; on the hub, `images/` holds `*.tar.gz`
files to be unpacked where they lie. Paths in the JSON files start from the folder that holds `train/` and `test/`.
Source: Chu et al. 2024 (2311.12751), github.com/MultimodalGeo/GeoText-1652.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from core.data.split_names import TEST, TRAIN, split_called
from core.errors import UserError
from core.files.json_files import decode_json, read_json
from core.formats.archives import IMAGE_SUFFIXES, members
from core.formats.records import Findings, Record
from core.formats.rows import record_of_row

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
FULL_TEST = "test_951_version"
"""Of all 951 buildings; the other test file, of about 190 buildings, keeps its name."""


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Images that lie in archives, as records without captions; then the entries, in order of the files.

    Args:
        path: the set's folder, an archive of it, or one of its JSON files.
        split: of a JSON file whose name does not say it.
    """
    records: list[Record] = []
    for name, content in _annotations(path, findings):
        if not isinstance(content, list):
            raise UserError("is not a list of entries", where=name)
        for number, entry in enumerate(content):
            records += _record(entry, f"{name}: entry {number}", _split(name, split), findings)
    wanted = {record.names[0] for record in records}
    for archive in _archives(path):
        for name, content_of in members(archive, findings):
            inside = archive.parent.relative_to(path) / name if path.is_dir() else PurePosixPath(name)
            if name.lower().endswith(IMAGE_SUFFIXES) and (found := _ending(PurePosixPath(inside.as_posix()), wanted)):
                wanted.discard(found)
                yield Record(f"{archive}: {name}", (found,), (), TRAIN, content=content_of())
    yield from records


def is_annotation(name: str) -> bool:
    """Whether a file has one of the names that the set's annotations have."""
    path = PurePosixPath(name)
    return path.suffix == ".json" and (split_called(path.stem) is not None or path.stem.startswith(f"{TEST}_"))


def archives_in(folder: Path) -> list[Path]:
    """Archives in a folder and below it, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.name.lower().endswith(ARCHIVES) and path.is_file())


def _archives(path: Path) -> list[Path]:
    if path.is_dir():
        return archives_in(path)
    return [] if path.suffix == ".json" else [path]


def _annotations(path: Path, findings: Findings) -> Iterator[tuple[str, Any]]:
    """Place and content of each annotation file."""
    if path.suffix == ".json":
        yield str(path), read_json(path)
        return
    if path.is_dir():
        for file in sorted(path.glob("*.json")):
            if is_annotation(file.name):
                yield str(file), read_json(file)
        return
    content_of: Callable[[], bytes]
    for name, content_of in members(path, findings):
        if is_annotation(name):
            yield f"{path}/{name}", decode_json(content_of(), where=f"{path}/{name}")


def _split(name: str, default: str) -> str:
    stem = PurePosixPath(name).stem
    if stem == FULL_TEST:
        return TEST
    return stem if is_annotation(PurePosixPath(name).name) else default


def _record(entry: Any, where: str, split: str, findings: Findings) -> list[Record]:
    if not isinstance(entry, dict):
        findings.drop("record that is not an object", where)
        return []
    record = record_of_row({name: value for name, value in entry.items() if name != "split"}, where, split, findings)
    if record is None:
        return []
    given = entry.get("image_id")
    return [replace(record, image_id=str(given).strip() if isinstance(given, str | int) else None)]


def _ending(path: PurePosixPath, wanted: set[str]) -> str | None:
    """The longest end of a path that is the path of an image of the set."""
    parts = path.parts
    return next((end for start in range(len(parts)) if (end := "/".join(parts[start:])) in wanted), None)
