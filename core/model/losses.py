"""The four losses, unweighted. Pure functions of tensors, without synchronisation with the device."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from core.config import LossConfig
from core.data.geometry import paired_giou
from core.model.views import ImageView, TextView

OUT_OF_REACH = -1e9
"""Logit of an item that must not be drawn."""
BELOW_ONE = 1 - 1e-6
"""Keeps a random point below the end of a cumulative sum despite rounding."""


Value = TypeVar("Value", Tensor, float)


class Losses(NamedTuple, Generic[Value]):
    """The four unweighted losses: tensors for a step, numbers for an epoch."""

    itc: Value
    itm: Value
    box: Value
    spatial: Value


def weighted_sum(losses: Losses[Value], weights: LossConfig) -> Value:
    """The training objective: the sum of the losses, each times its weight; a scalar."""
    return (
        weights.itc * losses.itc
        + weights.itm * losses.itm
        + weights.box * losses.box
        + weights.spatial * losses.spatial
    )


def contrastive_logits(image: Tensor, text: Tensor, temperature: Tensor) -> Tensor:
    """Cosine similarity of each image to each text, divided by the temperature.

    Args:
        image, text: [B, D], unit norm.
        temperature: scalar.
    Returns:
        [B, B], images by texts.
    Source: CLIP (2103.00020) §2.3.
    """
    return (image / temperature) @ text.T


def itc_loss(logits: Tensor, groups: Tensor) -> Tensor:
    """Image-text contrastive loss, the mean of both directions.

    All items of the same group are positives of equal weight; if all groups are distinct, this is InfoNCE.

    Args:
        logits: [B, B], images by texts; image i belongs to text i.
        groups: [B] int64, of images and texts alike.
    Returns:
        Scalar, the mean over the batch.
    Source: CLIP (2103.00020) §2.3; soft targets over positives as in SupCon (2004.11362) §3.2, L_out.
    """
    same = (groups[:, None] == groups).to(logits.dtype)
    positives = (logits * same).sum(dim=1) / same.sum(dim=1)
    return ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - positives).mean()


def hard_negatives(logits: Tensor, groups: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a text of another group for each image, and an image of another group for each text, ∝ softmax.

    Args:
        logits: [B, B], images by texts.
        groups: [B] int64, of images and texts alike.
        generator: on the device of `groups`.
    Returns:
        Rows of texts and rows of images, [B] int64 each; -1 if there is no other group.
    Source: ALBEF (2107.07651) §3.2; drawn by inverse transform sampling, with one random number per row.
    """
    points = torch.rand(2, len(groups), 1, generator=generator, device=groups.device).mul_(BELOW_ONE)
    same = groups[:, None] == groups
    alone = same.all(dim=1)
    allowed = logits.masked_fill(same, OUT_OF_REACH)
    texts, images = draw_columns(allowed, points[0]), draw_columns(allowed.T.contiguous(), points[1])
    return texts.masked_fill_(alone, -1), images.masked_fill_(alone, -1)


def draw_columns(logits: Tensor, points: Tensor) -> Tensor:
    """The column of each row at which the cumulative sum of its softmax exceeds a point.

    Args:
        logits: [B, C].
        points: [B, 1], 0 <= point < 1.
    Returns:
        [B] int64 in 0..C-1.
    """
    cumulative = logits.softmax(dim=1).cumsum(dim=1)
    points = points * cumulative[:, -1:]  # about 1
    drawn = torch.searchsorted(cumulative, points, right=True)  # where the sum grows, so never OUT_OF_REACH
    return drawn.squeeze(1).clamp_(max=logits.shape[1] - 1)  # NaN in a diverging run leads past the end


def itm_loss(
    odds: Callable[[ImageView, TextView], Tensor],
    images: ImageView,
    texts: TextView,
    hard_texts: Tensor,
    hard_images: Tensor,
) -> Tensor:
    """Image-text matching loss over each pair, and over its image and its text with a hard negative partner each.

    Args:
        odds: N images, N texts → [N], logarithm of the odds of a match.
        images, texts: B each; image i belongs to text i.
        hard_texts, hard_images: [B] as drawn by `hard_negatives`; a -1 drops out.
    Returns:
        Scalar: the mean two-class cross-entropy over the (at most 3 B) pairs.
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
    """Mean L1 over all coordinates, plus `giou` × mean (1 − GIoU); 0 without boxes.

    Args:
        predicted, target: [R, 4] x1 y1 x2 y2 in 0..1.
        giou: weight of the GIoU term.
    Returns:
        Scalar.
    Source: DETR (2005.12872) §3.1.
    """
    if len(target) == 0:
        return predicted.sum()
    loss = functional.l1_loss(predicted, target)
    return loss + giou * (1 - paired_giou(predicted, target)).mean() if giou else loss


def relation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the six relations; targets of -1 are ignored, and without any other the loss is 0.

    Args:
        logits: [R, 6].
        target: [R] int64 in -1..5.
    Returns:
        Scalar.
    """
    total = functional.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)
