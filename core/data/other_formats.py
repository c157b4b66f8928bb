"""Recognises annotations that are not GeoText's, so that messages name the format and the command that converts it."""

import json
from pathlib import Path
from typing import Any, Literal

Format = Literal["geotext", "karpathy", "coco", "xvlm", "jsonl", "csv", "entities", "webdataset", "arrow"]
NAMES: dict[Format, str] = {
    "geotext": "GeoText-1652 as published",
    "karpathy": "a Karpathy file",
    "coco": "a COCO captions file",
    "xvlm": "a JSON list as X-VLM and PIR have it",
    "jsonl": "a JSON Lines file",
    "csv": "a table",
    "entities": "Flickr30k Entities",
    "webdataset": "a webdataset",
    "arrow": "a Hugging Face data set on disk",
}
IMAGE = (
    "image", "image_path", "img_path", "image_file", "file_name", "filename", "image_name", "img", "filepath", "path",
)  # fmt: skip
"""Keys of an image's path in published lists and tables, in lower case."""
SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".tar": "webdataset",
}  # fmt: skip


def format_of_json(content: Any) -> Format | None:
    """The format of a JSON file by its keys; None if it is none that is known."""
    match content:
        case {"images": [{"filename": _}, *_]} | {"images": [{"sentences": _}, *_]}:
            return "karpathy"
        case {"images": [*_], "annotations": [{"caption": _}, *_]}:
            return "coco"
        case {"image": _, "caption": _}:
            return "jsonl"  # of one line
        case [dict(first), *_] if _is_geotext(first):
            return "geotext"
        case [dict(first), *_] if any(str(key).lower() in IMAGE for key in first):
            return "xvlm"
    return None


def _is_geotext(entry: dict[str, Any]) -> bool:
    """Whether the building stands in the entry's id, as in GeoText-1652."""
    return isinstance(entry.get("image_id"), str) and "/" in entry["image_id"] and "image" in entry


def format_of_file(path: Path) -> Format | None:
    """The format of a file that is no JSON, by its name and first line; None if it is none that is known."""
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    try:
        with path.open("rb") as stream:
            first, second = stream.readline(2**20), stream.read(1)
        return "jsonl" if second and isinstance(json.loads(first), dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def import_hint(path: Path, found: Format | None) -> str | None:
    """What to do with a file of another format."""
    return None if found is None else f"this is {NAMES[found]}: crossmodal data import {path} OUT"
