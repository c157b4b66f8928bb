"""Boxes and the six spatial relations. Pure functions; boxes are [x1, y1, x2, y2] in 0..1 unless said otherwise."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Relation = Literal["left", "right", "above", "below", "inside", "outside"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
"""In the order of the spatial head's six logits."""

CONTAINMENT = 0.9
"""Share of a region's area that must lie in the other one to count as contained."""


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Corners of boxes given by centre and size, clamped to the picture: [..., 4] → [..., 4]."""
    cx, cy, width, height = boxes.unbind(-1)
    corners = torch.stack([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], dim=-1)
    return corners.clamp(0.0, 1.0)


def area(boxes: Tensor) -> Tensor:
    """Area of each box: [..., 4] → [...]."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    corners = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1)
    return area(corners)


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of row i of `a` with row i of `b`: [R, 4], [R, 4] → [R] in 0..1.

    Two boxes without any area have an IoU of 0.
    """
    overlap = _intersection(a, b)
    union = area(a) + area(b) - overlap
    return overlap / union.clamp(min=torch.finfo(union.dtype).eps)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of row i of `a` with row i of `b`: [R, 4], [R, 4] → [R] in -1..1.

    Source: Rezatofighi et al. 2019 (1902.09630), algorithm 1.
    """
    eps = torch.finfo(a.dtype).eps
    overlap = _intersection(a, b)
    union = area(a) + area(b) - overlap
    hull = area(torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], dim=-1))
    return overlap / union.clamp(min=eps) - (hull - union) / hull.clamp(min=eps)


def relation_of(box: Sequence[float], reference: Sequence[float]) -> Relation:
    """Relation of one box to another, both [x1, y1, x2, y2] with a positive area.

    `inside` when at least 90 % of the box lies in the reference, else `outside` when at least 90 % of the
    reference lies in the box, else the side given by the larger offset of the centres (y points down).
    """
    a, b = torch.tensor(box, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)
    overlap = float(_intersection(a, b))
    if overlap >= CONTAINMENT * float(area(a)):
        return "inside"
    if overlap >= CONTAINMENT * float(area(b)):
        return "outside"
    dx, dy = ((a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2).tolist()
    if abs(dx) >= abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"
