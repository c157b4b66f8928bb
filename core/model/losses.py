"""The four losses, unweighted. Pure functions of tensors that never wait for the device."""

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from core.config import LossConfig
from core.data.geometry import paired_giou

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


def itc_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Image-text contrastive loss, the mean of both directions.

    All positives of a row count alike; where each row has but its own it is InfoNCE.

    Args:
        logits: [B, B], images by texts; image i belongs to text i.
        same: [B, B] bool, what matches: rows of equal keys, so that an image and its text have equally many positives.
    Source: CLIP (2103.00020) §2.3; soft targets over positives as in SupCon (2004.11362) §3.2, L_out.
    """
    same = same.to(logits.dtype)
    positives = (logits * same).sum(dim=1) / same.sum(dim=1)
    return ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - positives).mean()


def overlapping_itc_loss(logits: Tensor, same: Tensor) -> Tensor:
    """`itc_loss` for any symmetric relation, also one that is not transitive: one more pass over the logits."""
    same = same.to(logits.dtype)
    matching, counts = logits * same, same.sum(dim=1)
    positives = (matching.sum(dim=1) + matching.sum(dim=0)) / counts
    return (logits.logsumexp(dim=1) + logits.logsumexp(dim=0) - positives).mean() / 2


def sigmoid_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Contrastive loss that asks of every pair alone whether it matches: the sum over all pairs, over B.

    Args:
        logits: [B, B], images by texts: similarity over the temperature, plus the learned bias.
        same: [B, B] bool, what matches.
    Source: SigLIP (2303.15343) §3.2, algorithm 1, with a label of 1 for every positive.
    """
    total = functional.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="sum")
    return total / len(logits)


class Negatives(NamedTuple):
    """What does not match B pairs of an image and a text; rows of the batch, -1 where there is none."""

    texts: Tensor
    """[T, B] int64, T for each image"""
    images: Tensor
    """[B] int64, one for each text"""

    def clamped(self) -> "Negatives":
        """The same with a row that exists in place of each -1."""
        return Negatives(self.texts.clamp(min=0), self.images.clamp(min=0))


def hard_negatives(logits: Tensor, same: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For each image a text, and for each text an image, that does not match it, drawn ∝ softmax; -1 without any.

    Args:
        logits: [B, B], images by texts.
        same: [B, B] bool, symmetric, what matches.
    Returns:
        [B] int64 in -1..B-1, twice: texts, images.
    Source: ALBEF (2107.07651) §3.2; drawn by inverting the cumulative sum, with one random number a row.
    """
    points = _points(2, len(same), generator)
    alone = same.all(dim=1)
    allowed = logits.masked_fill(same, OUT_OF_REACH)
    texts, images = draw_columns(allowed, points[0]), draw_columns(allowed.T.contiguous(), points[1])
    return texts.masked_fill_(alone, -1), images.masked_fill_(alone, -1)


def random_negatives(same: Tensor, generator: torch.Generator) -> Tensor:
    """For each row a column that does not match it, all with equal chances; -1 without any: [B, B] bool → [B]."""
    (points,) = _points(1, len(same), generator)
    return _columns_at((~same).float().cumsum(dim=1), points).masked_fill_(same.all(dim=1), -1)


def _points(count: int, rows: int, generator: torch.Generator) -> Tensor:
    """[count, rows, 1], uniform from 0 to just below 1."""
    return torch.rand(count, rows, 1, generator=generator, device=generator.device).mul_(BELOW_ONE)


def draw_columns(logits: Tensor, points: Tensor) -> Tensor:
    """A column of each row [B], where the cumulative sum of its softmax passes its point of 0..1."""
    return _columns_at(logits.softmax(dim=1).cumsum(dim=1), points)


def _columns_at(cumulative: Tensor, points: Tensor) -> Tensor:
    points = points * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, points, right=True)  # where it grows, so never one out of reach
    last = cumulative.shape[1] - 1
    return drawn.squeeze(1).clamp_(max=last)  # past the end only in a run that diverges, without numbers


def itm_loss(log_odds: Tensor, negatives: Negatives) -> Tensor:
    """Image-text matching loss: two-class cross-entropy over pairs and those of their negatives that exist.

    Args:
        log_odds: [1 + T + 1, B], logarithm of the odds of a match: of the pairs, of each image with its T negative
            texts, and of each text with its negative image.
    Source: ALBEF (2107.07651) §3.2.
    """
    matched = torch.zeros_like(log_odds)
    matched[0] = 1
    found = torch.cat([negatives.texts, negatives.images[None]]) >= 0
    exists = torch.cat([torch.ones_like(found[:1]), found]).to(log_odds.dtype)
    total = functional.binary_cross_entropy_with_logits(log_odds, matched, weight=exists, reduction="sum")
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
