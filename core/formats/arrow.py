"""A split of a Hugging Face data set that `save_to_disk` wrote: `state.json` names its Arrow files.

Each file is a stream of record batches; an image is a struct of its file's bytes and path, either of which may be null.
Read by pyarrow alone. The columns of images and classes are known by the features in the schema, others by name.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from core.data.images import file_problem
from core.errors import UserError
from core.files.json_files import read_json
from core.formats.records import Findings, Record
from core.formats.rows import record_of_row, require_columns

STATE, SPLITS = "state.json", "dataset_dict.json"
ROWS = 32
"""Rows in memory at once, with their images."""
SUFFIXES = {
    b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp",
    b"II*\0": ".tif", b"MM\0*": ".tif",
}  # fmt: skip
"""First bytes of an image → its suffix, if its path does not say it."""


def read(folder: Path, split: str, findings: Findings) -> Iterator[Record]:
    """Rows of one split, in order of its files."""
    row_number = 0
    for path in data_files(folder):
        for names, row in _rows(path):
            where = f"{path}: row {row_number}"
            row_number += 1
            if record := _record(row, names, where, split, findings):
                yield record


def data_files(folder: Path) -> list[Path]:
    """Arrow files of a split.

    Raises:
        UserError: state.json does not name them, or names one outside the folder.
    """
    match read_json(folder / STATE):
        case {"_indices_data_files": [_, *_]}:
            raise UserError(
                "keeps the order of its rows in another file",
                where=folder / STATE,
                how="save it again with a current version of datasets",
            )
        case {"_data_files": [*files]} if all(isinstance(file, dict) for file in files):
            names = [file.get("filename") for file in files]
            if names and all(isinstance(name, str) and PurePath(name).name == name != ".." for name in names):
                return [folder / name for name in names]
    raise UserError("does not name the Arrow files beside it", where=folder / STATE)


def splits_of(folder: Path) -> list[str]:
    """Names of the splits of a folder with several, each a folder in it."""
    match read_json(folder / SPLITS):
        case {"splits": [*names]} if names and all(isinstance(n, str) and PurePath(n).name == n != ".." for n in names):
            return [str(name) for name in names]
    raise UserError("does not name the splits beside it", where=folder / SPLITS)


def _rows(path: Path) -> Iterator[tuple[tuple[str, Mapping[str, list[str]]], dict[str, Any]]]:
    """The column of images and the names of classes by column, with each row as plain values."""
    if problem := file_problem(path):
        raise UserError(problem, where=path)
    try:
        with pa.memory_map(str(path)) as stream, pa.ipc.open_stream(stream) as batches:
            names = _features(batches.schema, path)
            for batch in batches:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, ROWS):
                    for row in batch.slice(start, ROWS).to_pylist():
                        yield names, row
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"is not an intact Arrow stream ({reason})", where=path, how="save it again") from None


def _features(schema: Any, path: Path) -> tuple[str, Mapping[str, list[str]]]:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        kinds = {str(name): kind for name, kind in features.items() if isinstance(kind, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        kinds = {}
    image = next((name for name, kind in kinds.items() if kind.get("_type") == "Image"), None)
    if image is None:
        image = next((field.name for field in schema if pa.types.is_struct(field.type) and _is_image(field.type)), "")
    require_columns([name for name in schema.names if name != image] + ["image"] * bool(image), path)
    classes = {name: kind["names"] for name, kind in kinds.items() if isinstance(kind.get("names"), list)}
    return image, classes


def _is_image(kind: Any) -> bool:
    return {"bytes", "path"} <= {kind.field(number).name for number in range(kind.num_fields)}


def _record(
    row: dict[str, Any], names: tuple[str, Mapping[str, list[str]]], where: str, split: str, findings: Findings
) -> Record | None:
    column, classes = names
    fields = {name: _class(value, classes.get(name)) for name, value in row.items() if name != column}
    image = row.get(column)
    if not column:
        return record_of_row(fields, where, split, findings)
    content, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (None, image)
    if not isinstance(content, bytes):
        return record_of_row({**fields, "image": path}, where, split, findings)
    name = path if isinstance(path, str) and path.strip() else None
    place = _place(name, content)
    record = record_of_row({**fields, "image": name or place}, where, split, findings)
    return record and replace(record, content=content, place=f"{split}/{place}")


def _class(value: Any, names: list[str] | None) -> Any:
    """The name of a class given by its number."""
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def _place(name: str | None, content: bytes) -> str:
    """Equal files with equal names are one image; files of one name and other content are not."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    suffix = next((suffix for start, suffix in SUFFIXES.items() if content.startswith(start)), ".img")
    if name is None:
        return digest + suffix
    path = PurePath(name)
    return f"{path.stem}-{digest}{path.suffix or suffix}"
