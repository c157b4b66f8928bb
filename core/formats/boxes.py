"""Boxes of any layout and unit as GeoText's [cx, cy, w, h] in fractions of the image.

Pure functions. What a file does not say of its boxes is concluded from all of them, or asked for.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from core.data.entries import PIXELS, ROUNDING
from core.data.geometry import Box, clamped, corners_of
from core.errors import UserError, shown

Layout = Literal["xyxy", "xywh", "cxcywh"]
"""Corners; one corner and the size; centre and size."""
Unit = Literal["pixels", "fractions"]
Size = tuple[int, int]
LAYOUTS: tuple[Layout, ...] = ("xyxy", "xywh", "cxcywh")
DIGITS = 6
SLACK = 0.02
"""A box this far beyond the edge still fits its layout."""


def four_numbers(raw: Any) -> Box | None:
    """A box as plain numbers; None if it is anything else."""
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes) or len(raw) != 4:
        return None
    try:
        x, y, z, w = (float(value) for value in raw if isinstance(value, int | float) and not isinstance(value, bool))
    except (ValueError, OverflowError):
        return None
    return (x, y, z, w) if all(map(math.isfinite, (x, y, z, w))) else None


def corners(box: Box, layout: Layout) -> Box:
    """x1 y1 x2 y2 of a box, in its own unit."""
    match layout:
        case "xyxy":
            return box
        case "xywh":
            return box[0], box[1], box[0] + box[2], box[1] + box[3]
        case "cxcywh":
            return corners_of(*box)


def in_fractions(box: Box, size: Size | None) -> Box:
    """A box of corners divided by the image's width and height; unchanged without a size."""
    if size is None:
        return box
    width, height = size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def to_geotext(box: Box, layout: Layout, size: Size | None) -> tuple[list[float] | None, str | None]:
    """A box as [cx, cy, w, h] in fractions, and the repair that this took.

    Args:
        size: width and height in pixels of the image; None if the box is in fractions.
    Returns:
        None instead of the box if nothing of it is in the image; then the second value says why.
    """
    if layout == "cxcywh" and size is None and box[0] <= 0:
        return list(box), None  # GeoText's marker of an absent box, or one that its reader counts
    x1, y1, x2, y2 = whole = in_fractions(corners(box, layout), size)
    if x2 <= x1 or y2 <= y1:
        return None, "box without area"
    inside = clamped(whole)
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return None, "box outside the image"
    beyond = max(-x1, -y1, x2 - 1, y2 - 1)
    if beyond <= ROUNDING and layout == "cxcywh" and size is None:
        return list(box), None
    x1, y1, x2, y2 = inside
    fractions = [round(value, DIGITS) for value in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)]
    if not (fractions[2] > 0 and fractions[3] > 0):
        return None, "box without area"
    return fractions, "box clamped to the image" if beyond > ROUNDING else None


def settle_unit(boxes: Sequence[Box], declared: Unit | None, *, where: str) -> Unit:
    """The unit of all boxes of a source: as declared, else by their numbers, which leave no doubt.

    Raises:
        UserError: the numbers contradict what was declared.
    """
    largest = max(boxes, key=max)
    seen: Unit = "pixels" if max(largest) > PIXELS else "fractions"
    if declared is None or declared == seen:
        return seen
    told = f"the box {shown(list(largest))} looks like pixels" if seen == "pixels" else f"no number exceeds {PIXELS}"
    raise UserError(f"its boxes were read as {declared}, but {told}", where=where, how=f"say so with --box-unit {seen}")


def settle_layout(boxes: Iterable[tuple[Box, Size | None]], *, where: str) -> Layout:
    """The one layout in which every box has an area and lies in its image.

    Args:
        boxes: with the size of their image, or None if they are in fractions.
    Raises:
        UserError: several layouts are possible, or none.
    """
    possible = list(LAYOUTS)
    for box, size in boxes:
        possible = [layout for layout in possible if _fits(in_fractions(corners(box, layout), size))]
    if len(possible) == 1:
        return possible[0]
    found = f"may be {' or '.join(possible)}" if possible else "are of no layout in which all lie in their images"
    raise UserError(f"its boxes {found}", where=where, how=f"say which with --boxes {'|'.join(possible or LAYOUTS)}")


def _fits(box: Box) -> bool:
    x1, y1, x2, y2 = box
    return x1 < x2 and y1 < y2 and min(x1, y1) >= -SLACK and max(x2, y2) <= 1 + SLACK
