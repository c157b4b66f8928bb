"""The four losses, unweighted. Pure functions of tensors, without synchronisation with the device."""

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from core.config import LossConfig
from core.data.overlap import paired_giou

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


def itc_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Image-text contrastive loss, the mean of both directions.

    All positives of a row have equal weight; if each row has only one, this is InfoNCE.

    Args:
        logits: [B, B], images by texts; image i belongs to text i.
        same: [B, B] bool, an equivalence relation: which images and texts match each other.
    Returns:
        Scalar, the mean over the batch.
    Source: CLIP (2103.00020) §2.3; soft targets over positives as in SupCon (2004.11362) §3.2, L_out.
    """
    same = same.to(logits.dtype)
    positives = (logits * same).sum(dim=1) / same.sum(dim=1)
    return ((logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) / 2 - positives).mean()


def overlapping_itc_loss(logits: Tensor, same: Tensor) -> Tensor:
    """`itc_loss` for a symmetric relation that need not be transitive, with one more pass over the logits.

    Without transitivity a text may have more positives than an image that it matches, so that the pair has another
    weight in each direction.
    """
    same = same.to(logits.dtype)
    matching, counts = logits * same, same.sum(dim=1)
    positives = (matching.sum(dim=1) + matching.sum(dim=0)) / counts
    return (logits.logsumexp(dim=1) + logits.logsumexp(dim=0) - positives).mean() / 2


def sigmoid_loss(logits: Tensor, same: Tensor) -> Tensor:
    """Contrastive loss that classifies each pair of the batch independently as a match or not.

    Args:
        logits: [B, B], images by texts: similarity divided by the temperature, plus the learned bias.
        same: [B, B] bool, which images and texts match each other.
    Returns:
        Scalar: the sum of the binary cross-entropies of all pairs, divided by B.
    Source: SigLIP (2303.15343) §3.2, algorithm 1, with a label of 1 for every positive.
    """
    total = functional.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="sum")
    return total / len(logits)


class Negatives(NamedTuple):
    """Non-matching items of B pairs, as rows of the batch; -1 if there is none."""

    texts: Tensor
    """[T, B] int64, T texts for each image"""
    images: Tensor
    """[B] int64, an image for each text"""

    def clamped(self) -> "Negatives":
        """A copy with row 0 in place of -1, which can be used as an index."""
        return Negatives(self.texts.clamp(min=0), self.images.clamp(min=0))


def hard_negatives(logits: Tensor, same: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a non-matching text for each image, and a non-matching image for each text, ∝ softmax.

    Args:
        logits: [B, B], images by texts.
        same: [B, B] bool, symmetric: which images and texts match each other.
        generator: on the device of `logits`.
    Returns:
        Rows of texts and rows of images, [B] int64 each; -1 if everything matches.
    Source: ALBEF (2107.07651) §3.2; drawn by inverse transform sampling, with one random number per row.
    """
    points = _points(2, len(same), generator)
    alone = same.all(dim=1)
    allowed = logits.masked_fill(same, OUT_OF_REACH)
    texts, images = draw_columns(allowed, points[0]), draw_columns(allowed.T.contiguous(), points[1])
    return texts.masked_fill_(alone, -1), images.masked_fill_(alone, -1)


def random_negatives(same: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a non-matching text for each image, all with equal probability.

    Args:
        same: [B, B] bool, which images and texts match each other.
        generator: on the device of `same`.
    Returns:
        [B] int64; -1 if everything matches.
    """
    (points,) = _points(1, len(same), generator)
    return _columns_at((~same).float().cumsum(dim=1), points).masked_fill_(same.all(dim=1), -1)


def _points(count: int, rows: int, generator: torch.Generator) -> Tensor:
    """Uniform random numbers [count, rows, 1], 0 <= number < 1."""
    return torch.rand(count, rows, 1, generator=generator, device=generator.device).mul_(BELOW_ONE)


def draw_columns(logits: Tensor, points: Tensor) -> Tensor:
    """The column of each row at which the cumulative sum of its softmax exceeds a point.

    Args:
        logits: [B, C].
        points: [B, 1], 0 <= point < 1.
    Returns:
        [B] int64 in 0..C-1.
    """
    return _columns_at(logits.softmax(dim=1).cumsum_(dim=1), points)  # in place: a batch of 8,192 fills 268 MB


def _columns_at(cumulative: Tensor, points: Tensor) -> Tensor:
    points = points * cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, points, right=True)  # where the sum grows, so never OUT_OF_REACH
    return drawn.squeeze(1).clamp_(max=cumulative.shape[1] - 1)  # NaN in a diverging run leads past the end


def itm_loss(log_odds: Tensor, negatives: Negatives) -> Tensor:
    """Image-text matching loss over pairs and their negatives.

    Args:
        log_odds: [1 + T + 1, B], log-odds of a match: of the pairs, of each image with its T negative texts, and of
            each text with its negative image.
        negatives: from which `log_odds` were computed; those of -1 are ignored.
    Returns:
        Scalar: the mean two-class cross-entropy over the pairs and the existing negatives.
    Source: ALBEF (2107.07651) §3.2.
    """
    matched = torch.zeros_like(log_odds)
    matched[0] = 1
    found = torch.cat([negatives.texts, negatives.images[None]]) >= 0
    exists = torch.cat([torch.ones_like(found[:1]), found]).to(log_odds.dtype)
    total = functional.binary_cross_entropy_with_logits(log_odds, matched, weight=exists, reduction="sum")
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
