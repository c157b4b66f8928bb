"""Validation of a single entry of an annotation file, field by field, independent of other entries.

Whatever a field holds becomes part of an `Entry`, a counted repair, or one line that names the entry.
"""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from core.data.geometry import RELATIONS, Box, clamped, corners_of
from core.data.images import file_problem
from core.errors import UserError, shown

PIXELS = 1.5
"""Fractions of an image are never larger: a box with larger numbers is in pixels."""
ROUNDING = 0.001 + 1e-9
"""A box may exceed the edge by this much without counting as repaired."""
JSON_TYPES = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


class EntryRegion(NamedTuple):
    """A sentence and its box, before relations are known."""

    sentence: str
    box: Box
    relation: int | None
    """As given in the entry; None if it is absent."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One valid entry; several may describe the same image."""

    where: str
    """File, number and image id, for messages."""
    image: Path
    image_id: str
    captions: list[str]
    regions: list[EntryRegion]


def parse_entry(raw: Any, where: str, image_root: Path | None, repaired: Counter[str]) -> Entry:
    """Validate one entry.

    Args:
        raw: any JSON value.
        where: name of the entry in messages.
        image_root: folder that the image's path starts from and stays below as written; links may lead elsewhere. None:
            there are no pictures, and the path is a name.
        repaired: kind of repair → number of repairs; updated.
    Raises:
        UserError: names the entry and what is wrong with it.
    """
    if not isinstance(raw, dict):
        raise UserError(f"is not an object but {_type_of(raw)}", where=where)
    image_id = _image_id(raw.get("image_id"), where)
    if image_id:
        where = f"{where} ({shown(image_id)})"
    name = _text(raw.get("image"), "image", where)
    if not image_id:
        repaired["absent image_id replaced by the path of the image"] += 1
    return Entry(
        where=where,
        image=_locate(name, image_root, where),
        image_id=image_id or name,
        captions=_captions(raw.get("caption"), where, repaired),
        regions=_regions(raw, where, repaired),
    )


def _type_of(value: Any) -> str:
    return JSON_TYPES.get(type(value), "null")


def _is_absent(value: Any) -> bool:
    """Whether a value is missing: null, blank, or the NaN that pandas writes for an empty cell."""
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def _text(value: Any, name: str, where: str) -> str:
    if _is_absent(value):
        raise UserError(f"has no {name}", where=where)
    if not isinstance(value, str):
        raise UserError(f"{name} must be text, not {_type_of(value)}", where=where)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        lone = shown(value[error.start])
        raise UserError(f"{name} holds {lone}, half of a surrogate pair, which is no text", where=where) from None
    return value.strip()


def _image_id(value: Any, where: str) -> str | None:
    if _is_absent(value):
        return None
    if isinstance(value, float) and value.is_integer():  # how pandas writes integers beside empty cells
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"image_id must be text or an integer, not {shown(value)}", where=where)
    return _text(value, "image_id", where)


def _captions(value: Any, where: str, repaired: Counter[str]) -> list[str]:
    values = value if isinstance(value, list) else [value]
    kept = [_text(caption, "caption", where) for caption in values if not _is_absent(caption)]
    if not kept:
        raise UserError("has no caption", where=where)
    if len(kept) < len(values):
        repaired["empty caption dropped"] += len(values) - len(kept)
    return kept


def _locate(name: str, image_root: Path | None, where: str) -> Path:
    if image_root is None:
        return Path(name)
    written = PurePath(name)
    if written.is_absolute():
        roots = (image_root.absolute(), image_root.resolve())
        written = next((written.relative_to(root) for root in roots if written.is_relative_to(root)), written)
    if written.is_absolute() or ".." in written.parts:
        raise UserError(f"the image {shown(name)} is outside {image_root}", where=where)
    path = image_root / written
    if problem := file_problem(path):
        raise UserError(f"the image {shown(name)} {problem}", where=where, how=f"paths start from {image_root}")
    return path


def _regions(raw: dict[str, Any], where: str, repaired: Counter[str]) -> list[EntryRegion]:
    sentences, boxes = _list(raw.get("sentences"), where), _list(raw.get("bboxes"), where)
    names = _list(raw.get("relations"), where) or [None] * len(boxes)
    if not len(sentences) == len(boxes) == len(names):
        raise UserError(f"has {len(sentences)} sentences, {len(boxes)} bboxes, {len(names)} relations", where=where)
    regions = []
    for number, (sentence, raw_box, name) in enumerate(zip(sentences, boxes, names, strict=True)):
        box = _box(raw_box, f"{where}: bboxes[{number}]", repaired)
        relation = _relation(name, f"{where}: relations[{number}]")
        text = None if _is_absent(sentence) else _text(sentence, f"sentences[{number}]", where)
        if box is not None and text is not None:
            regions.append(EntryRegion(text, box, relation))
    return regions


def _list(value: Any, where: str) -> list[Any]:
    if _is_absent(value):
        return []
    if not isinstance(value, list):
        raise UserError("sentences, bboxes and relations must be lists", where=where)
    return value


def _box(raw: Any, where: str, repaired: Counter[str]) -> Box | None:
    """Corners of a box; None if it is absent or has no area within the image."""
    if _is_absent(raw):
        return None
    cx, cy, width, height = _four_numbers(raw, where)
    if max(cx, cy, width, height) > PIXELS:
        raise UserError(
            f"{shown(raw)} looks like pixels", where=where, how="write [cx, cy, w, h] as fractions of width and height"
        )
    if cx <= 0:  # GeoText's marker of an absent box
        if width > 0 and height > 0:
            repaired["box with its centre left of the image dropped"] += 1
        return None
    if width < 0 or height < 0:
        repaired["box with a negative width or height dropped"] += 1
        return None
    corners = corners_of(cx, cy, width, height)
    x1, y1, x2, y2 = inside = clamped(corners)
    if (x2 - x1) * (y2 - y1) <= 0:
        repaired["box without area dropped"] += 1
        return None
    if max(-corners[0], -corners[1], corners[2] - 1, corners[3] - 1) > ROUNDING:
        repaired["box clamped to the image"] += 1
    return inside


def _four_numbers(raw: Any, where: str) -> list[float]:
    if not isinstance(raw, list) or len(raw) != 4:
        length = len(raw) if isinstance(raw, list) else 1
        raise UserError(f"has {length} numbers instead of 4", where=where, how="write [cx, cy, w, h]")
    try:
        numbers = [
            float(value) for value in raw if type(value) is float or type(value) is int
        ]  # a boolean is not a number
    except OverflowError:  # an integer of over 308 digits
        numbers = []
    if len(numbers) < 4 or not all(map(math.isfinite, numbers)):
        raise UserError("contains values that are not finite numbers", where=where, how="write [cx, cy, w, h]")
    return numbers


def _relation(name: Any, where: str) -> int | None:
    if name is None:
        return None
    if name not in RELATIONS:
        raise UserError(f"'{shown(name)}' is not one of {', '.join(RELATIONS)}", where=where)
    return RELATIONS.index(name)
