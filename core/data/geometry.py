"""Boxes and the six spatial relations. Pure functions of plain numbers; boxes are [x1, y1, x2, y2] in 0..1."""

from typing import Literal, get_args

Relation = Literal["left", "right", "above", "below", "inside", "outside"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
"""In the order of the spatial head's six logits."""

Box = tuple[float, float, float, float]
"""x1 y1 x2 y2"""

CONTAINMENT = 0.9
"""Fraction of a region's area that must be in the other one to count as contained."""


def corners_of(cx: float, cy: float, width: float, height: float) -> Box:
    """Corners of a box given by centre and size, not clamped to the image."""
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def clamped(box: Box) -> Box:
    """The part of a box that is in the image; a box outside it keeps no width or no height."""
    x1, y1, x2, y2 = box
    return min(max(x1, 0.0), 1.0), min(max(y1, 0.0), 1.0), min(max(x2, 0.0), 1.0), min(max(y2, 0.0), 1.0)


def relation_of(box: Box, reference: Box) -> Relation:
    """Relation of one box to another, both with a positive area.

    `inside` if at least 90 % of the box is in the reference, else `outside` if at least 90 % of the reference is in the
    box, else the side given by the larger offset of the centres (y points down). Uses plain numbers: one tensor per
    region would take longer than all the rest of reading an annotation file.
    """
    x1, y1, x2, y2 = box
    rx1, ry1, rx2, ry2 = reference
    overlap = max(min(x2, rx2) - max(x1, rx1), 0.0) * max(min(y2, ry2) - max(y1, ry1), 0.0)
    if overlap >= CONTAINMENT * ((x2 - x1) * (y2 - y1)):
        return "inside"
    if overlap >= CONTAINMENT * ((rx2 - rx1) * (ry2 - ry1)):
        return "outside"
    dx, dy = (x1 + x2) / 2 - (rx1 + rx2) / 2, (y1 + y2) / 2 - (ry1 + ry2) / 2
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"
