"""The four losses, unweighted. Pure functions of tensors that never wait for the device."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.data.geometry import paired_giou
from core.device import row_blocks

OUT_OF_REACH = -1e9
"""Added to a logit that must not be drawn."""
BELOW_ONE = 1 - 1e-6
"""Keeps a drawn point below the end of a cumulative sum whatever the rounding."""
CACHED_BYTES = 2**20
"""Of logits that are worked on at once on a CPU: what its cache nearest to a core holds."""


def contrastive_logits(image: Tensor, text: Tensor, temperature: Tensor) -> Tensor:
    """Similarity of every image to every text over the temperature: [B, D], [B, D] of unit norm → [B, B]."""
    return (image / temperature) @ text.T


def itc_loss(logits: Tensor, groups: Tensor) -> Tensor:
    """Image-text contrastive loss, the mean of both directions.

    Every row of the same group is a positive, all with equal weight; with distinct groups it is InfoNCE.

    Args:
        logits: [B, B], images by texts; image i belongs to text i.
        groups: [B] int64.
    Source: CLIP (2103.00020) §2.3; soft targets over positives as in SupCon (2004.11362) §3.2, L_out.
    """
    loss: Tensor = _ContrastiveLoss.apply(logits, groups)  # type: ignore[no-untyped-call]
    return loss


class _ContrastiveLoss(torch.autograd.Function):
    """Softmax of rows plus softmax of columns minus twice the targets is its gradient: a block of rows at a time, so
    that a large batch needs nothing of size [B, B] beside its logits and their gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, groups: Tensor) -> Tensor:
        to_texts, positives, counts = (torch.empty_like(logits[0]) for _ in range(3))
        highest, mass = torch.full_like(logits[0], -math.inf), torch.zeros_like(logits[0])  # of the columns so far
        for block in _blocks(logits):
            rows, same = logits[block], _same_group(groups, block)
            counts[block] = same.sum(dim=1)
            positives[block] = torch.linalg.vecdot(rows, same)
            to_texts[block] = _log_sum_exp(rows)
            before, highest = highest, torch.maximum(highest, rows.amax(dim=0))
            mass.mul_((before - highest).exp_()).add_((rows - highest).exp_().sum(dim=0))
        to_images = mass.log_().add_(highest)
        ctx.save_for_backward(logits, groups, to_texts, to_images, counts)
        return ((to_texts + to_images) / 2 - positives / counts).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, groups, to_texts, to_images, counts = ctx.saved_tensors
        found = torch.empty_like(logits)
        for block in _blocks(logits):
            of_block = torch.sub(logits[block], to_texts[block, None], out=found[block]).exp_()
            of_block += (logits[block] - to_images).exp_()
            of_block -= _same_group(groups, block).mul_(2 / counts[block, None])
            of_block *= gradient / (2 * len(logits))
        return found, None


def _blocks(logits: Tensor) -> list[slice]:
    """Runs of rows to work on at once."""
    size = len(logits)
    on_cpu = logits.device.type == "cpu"
    return list(row_blocks(size, size, max_bytes=CACHED_BYTES)) if on_cpu else [slice(0, size)]


def _same_group(groups: Tensor, block: slice) -> Tensor:
    """[b, B] float32: 1 where row and column are of the same group, else 0. Comparing costs more than arithmetic."""
    rows = groups[block, None]
    same = torch.empty(len(rows), len(groups), device=groups.device)
    return torch.eq(rows, groups[None, :], out=same)


def _log_sum_exp(rows: Tensor) -> Tensor:
    """[b, B] → [b] in half the time of `logsumexp`, by way of the softmax of the largest entry, which is never 0."""
    return rows.amax(dim=1) - rows.softmax(dim=1).amax(dim=1).log_()


def hard_negatives(logits: Tensor, groups: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each image a text, and for each text an image, of another group, drawn ∝ softmax; -1 where there is none.

    Args:
        logits: [B, B], images by texts.
        groups: [B] int64 of images and texts alike.
    Returns:
        [B] int64 in -1..B-1, twice: texts, images.
    Source: ALBEF (2107.07651) §3.2; drawn by inverting the cumulative sum, with one random number a row.
    """
    points = torch.rand(2, len(groups), 1, generator=generator, device=groups.device).mul_(BELOW_ONE)
    texts, images = torch.empty_like(groups), torch.empty_like(groups)
    columns = logits.T.contiguous()
    for block in _blocks(logits):
        same = _same_group(groups, block)
        alone = same.sum(dim=1) == len(groups)
        texts[block] = _draw(logits[block], same, points[0, block]).masked_fill_(alone, -1)
        images[block] = _draw(columns[block], same, points[1, block]).masked_fill_(alone, -1)
    return texts, images


def _draw(rows: Tensor, same: Tensor, points: Tensor) -> Tensor:
    cumulative = torch.add(rows, same, alpha=OUT_OF_REACH).softmax(dim=1).cumsum(dim=1)
    points = points * cumulative[:, -1:]  # which is about 1
    drawn = torch.searchsorted(cumulative, points, right=True)  # where it grows, so never one out of reach
    return drawn.squeeze(1).clamp_(max=rows.shape[1] - 1)  # past the end only in a run that diverges, without numbers


def itm_loss(
    odds: Callable[[Tensor, Tensor], Tensor], image: Tensor, text: Tensor, hard_texts: Tensor, hard_images: Tensor
) -> Tensor:
    """Image-text matching loss: each pair against a hard negative text and a hard negative image.

    Args:
        odds: [N, D], [N, D] → [N], logarithm of the odds of a match.
        image, text: [B, D], unit norm.
        hard_texts, hard_images: [B] as drawn by `hard_negatives`; a -1 drops out.
    Returns:
        Two-class cross-entropy over the 3 B pairs.
    Source: ALBEF (2107.07651) §3.2.
    """
    own = torch.arange(len(image), device=image.device)
    # Their gradient, unlike that of plain indexing, adds up in a fixed order.
    images = functional.embedding(torch.cat([own, own, hard_images.clamp(min=0)]), image)
    texts = functional.embedding(torch.cat([own, hard_texts.clamp(min=0), own]), text)
    matched = torch.zeros(3, len(own), device=image.device)
    matched[0] = 1
    exists = torch.cat([torch.ones_like(own), hard_texts >= 0, hard_images >= 0]).to(image.dtype)
    found = odds(images, texts)
    total = functional.binary_cross_entropy_with_logits(found, matched.flatten(), weight=exists, reduction="sum")
    return total / exists.sum()


def box_loss(predicted: Tensor, target: Tensor, *, giou: float) -> Tensor:
    """L1 over all coordinates, plus `giou` × mean (1 − GIoU); 0 without boxes.

    Args:
        predicted, target: [R, 4] x1 y1 x2 y2 in 0..1.
    Source: DETR (2005.12872) §3.1.
    """
    if len(target) == 0:
        return predicted.sum()
    loss = functional.l1_loss(predicted, target)
    return loss + giou * (1 - paired_giou(predicted, target)).mean() if giou else loss


def relation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the six relations; targets of -1 drop out, and without any other it is 0.

    Args:
        logits: [R, 6].
        target: [R] int64 in -1..5.
    """
    total = functional.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)
