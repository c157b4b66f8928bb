"""webdataset: tar files in which all files of a sample have one name, and the suffix says what each of them is.

`000000001.jpg` is the image, `000000001.txt` its caption, `000000001.json` an object with both captions and anything
else. Tars are read from beginning to end, once, and nothing is extracted by the names in them.
Source: github.com/webdataset/webdataset; the key is the path up to the first dot of the file's name.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from core.data.other_formats import IMAGE
from core.errors import UserError
from core.files.json_files import decode_json
from core.formats.archives import IMAGE_SUFFIXES, tar_members
from core.formats.records import Findings, Record
from core.formats.rows import CAPTION, first_of, record_of_row

TEXTS = ("txt", "caption", "text", "captions", "cap")
JSON = "json"
CAPTIONS = tuple(name for name in CAPTION if name != "sentences")
"""Keys of captions in a JSON file; sentences beside a text belong to boxes."""


def read(path: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Samples of a tar file, in its order."""
    key, parts = "", dict[str, bytes]()
    for name, content in tar_members(path, findings):
        its_key, _, suffix = _parts(name)
        if its_key != key and parts:
            yield from _sample(path, key, parts, split, findings)
            parts = {}
        key = its_key
        parts.setdefault(suffix, content)
    if parts:
        yield from _sample(path, key, parts, split, findings)


def _parts(name: str) -> tuple[str, str, str]:
    """Key, dot and suffix."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(stem)) if stem else str(path.parent), dot, suffix.lower()


def _sample(path: Path, key: str, parts: dict[str, bytes], split: str, findings: Findings) -> Iterator[Record]:
    where = f"{path}: sample {key}"
    suffix = next((suffix for suffix in parts if f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES), None)
    if suffix is None:
        findings.drop("sample without an image", where)
        return
    row = _row(where, parts, findings)
    if row is None:
        return
    name = f"{key}.{suffix}"
    record = record_of_row({**row, "image": name}, where, split, findings)
    if record is not None:
        place = f"{path.name.partition('.')[0]}/{name}"
        yield replace(record, content=parts[suffix], place=place)


def _row(where: str, parts: dict[str, bytes], findings: Findings) -> dict[str, object] | None:
    """What the JSON and the text of a sample say; the text is its caption unless the JSON has one."""
    row: dict[str, object] = {}
    try:
        if JSON in parts:
            content = decode_json(parts[JSON], where=where)
            row = content if isinstance(content, dict) else {"captions": content}
        text = next((parts[suffix] for suffix in TEXTS if suffix in parts), None)
        own = first_of({name.lower(): value for name, value in row.items()}, CAPTIONS)
        if text is not None and own is None:
            row["caption"] = [line for line in text.decode("utf-8-sig").splitlines() if line.strip()]
    except (UserError, UnicodeDecodeError) as error:
        findings.drop("sample whose text cannot be read", where, error.what if isinstance(error, UserError) else error)
        return None
    return {name: value for name, value in row.items() if str(name).strip().lower() not in IMAGE}
