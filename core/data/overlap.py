"""How much boxes overlap: IoU and generalised IoU of tensors of boxes [x1, y1, x2, y2].

Apart from `geometry`, so that reading annotations does not import torch, which takes a second.
"""

import torch
from torch import Tensor


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
