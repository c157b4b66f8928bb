"""The four losses, unweighted. Pure functions of tensors that never wait for the device."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from core.config import LossConfig
from core.data.geometry import paired_giou
from core.model.views import ImageView, TextView

OUT_OF_REACH = -1e9
"""The logit of what must not be drawn."""
BELOW_ONE = 1 - 1e-6
"""Keeps a drawn point below the end of a cumulative sum whatever the rounding."""


Value = TypeVar("Value", Tensor, float)


class Losses(NamedTuple, Generic[Value]):
    """The four losses, unweighted: of a step as tensors, of an epoch as numbers."""

    itc: Value
    itm: Value
    box: Value
    spatial: Value


def weighted_sum(losses: Losses[Value], weights: LossConfig) -> Value:
    """What training minimises."""
    return (
        weights.itc * losses.itc
        + weights.itm * losses.itm
        + weights.box * losses.box
        + weights.spatial * losses.spatial
    )


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
    same = (groups[:, None] == groups).to(logits.dtype)
    positives = (logits * same).sum(dim=1) / same.sum(dim=1)
    return ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - positives).mean()


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
    same = groups[:, None] == groups
    alone = same.all(dim=1)
    allowed = logits.masked_fill(same, OUT_OF_REACH)
    texts, images = draw_columns(allowed, points[0]), draw_columns(allowed.T.contiguous(), points[1])
    return texts.masked_fill_(alone, -1), images.masked_fill_(alone, -1)


def draw_columns(logits: Tensor, points: Tensor) -> Tensor:
    """A column of each row [B], where the cumulative sum of its softmax passes its point of 0..1."""
    cumulative = logits.softmax(dim=1).cumsum(dim=1)
    points = points * cumulative[:, -1:]  # which is about 1
    drawn = torch.searchsorted(cumulative, points, right=True)  # where it grows, so never one out of reach
    return drawn.squeeze(1).clamp_(max=logits.shape[1] - 1)  # past the end only in a run that diverges, without numbers


def itm_loss(
    odds: Callable[[ImageView, TextView], Tensor],
    images: ImageView,
    texts: TextView,
    hard_texts: Tensor,
    hard_images: Tensor,
) -> Tensor:
    """Image-text matching loss: each pair against a hard negative text and a hard negative image.

    Args:
        odds: N images, N texts → [N], logarithm of the odds of a match.
        images, texts: B each; image i belongs to text i.
        hard_texts, hard_images: [B] as drawn by `hard_negatives`; a -1 drops out.
    Returns:
        Two-class cross-entropy over the 3 B pairs.
    Source: ALBEF (2107.07651) §3.2.
    """
    own = torch.arange(len(images.embedded), device=images.embedded.device)
    matched = torch.zeros(3, len(own), device=own.device)
    matched[0] = 1
    exists = torch.cat([torch.ones_like(own), hard_texts >= 0, hard_images >= 0]).to(images.embedded.dtype)
    log_odds = odds(
        images.rows(torch.cat([own, own, hard_images.clamp(min=0)])),
        texts.rows(torch.cat([own, hard_texts.clamp(min=0), own])),
    )
    total = functional.binary_cross_entropy_with_logits(log_odds, matched.flatten(), weight=exists, reduction="sum")
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
