"""The four losses, unweighted. Pure functions of tensors that never wait for the device."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from core.geometry import paired_giou
from core.metrics import query_blocks

MATCH = 1
"""Class of a matched pair in the matching head's two logits."""
BELOW_ONE = 1 - 1e-6
"""Keeps a drawn point below the end of a cumulative sum whatever the rounding."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Unweighted scalars of one step, so that runs with other weights can be compared."""

    itc: Tensor
    itm: Tensor
    box: Tensor
    spatial: Tensor

    def total(self, *, itc: float, itm: float, box: float, spatial: float) -> Tensor:
        """Their weighted sum."""
        return itc * self.itc + itm * self.itm + box * self.box + spatial * self.spatial


def itc_loss(image: Tensor, text: Tensor, groups: Tensor, temperature: Tensor) -> Tensor:
    """Image-text contrastive loss, the mean of both directions.

    Every row of the same group is a positive, all with equal weight; with distinct groups it is InfoNCE.

    Args:
        image, text: [B, D], unit norm; row i of one belongs to row i of the other.
        groups: [B] int64.
        temperature: positive scalar that divides similarities.
    Source: CLIP (2103.00020) §2.3; soft targets over positives as in SupCon (2004.11362) §3.2, L_out.
    """
    scaled = image / temperature
    logits = scaled @ text.T  # [B, B]
    to_texts, to_images = (functional.log_softmax(logits, dim).diagonal() for dim in (1, 0))
    only_own = -(to_texts + to_images).mean() / 2
    # With soft targets over all positives the pair's own logit is replaced by the mean over the positives' logits,
    # which are dot products with the mean of the group: no dense [B, B] targets.
    mean_image, mean_text = _group_means(torch.cat([scaled, text], dim=1), groups).chunk(2, dim=1)
    others = (mean_image * text + scaled * mean_text).sum(dim=1) / 2
    return only_own + ((scaled * text).sum(dim=1) - others).mean()


def _group_means(rows: Tensor, groups: Tensor) -> Tensor:
    """[B, D] → [B, D], each row replaced by the mean of its group; never waits for the device."""
    ordered, order = groups.sort(stable=True)
    number = torch.zeros_like(groups)
    number[1:] = (ordered[1:] != ordered[:-1]).cumsum(0)
    number = torch.zeros_like(groups).scatter(0, order, number)  # which group, from 0
    sums = torch.zeros_like(rows).index_add(0, number, rows)
    counts = torch.zeros_like(rows[:, 0]).index_add(0, number, torch.ones_like(rows[:, 0]))
    return _rows(sums / counts.clamp(min=1)[:, None], number)


def hard_negatives(similarity: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
    """For each row, a column of another group drawn ∝ softmax of the row; -1 where there is none.

    Args:
        similarity: [B, B] logits.
        groups: [B] int64 of rows and columns alike.
    Returns:
        [B] int64 in -1..B-1.
    Source: ALBEF (2107.07651) §3.2; drawn by inverting the cumulative sum, with one random number a row.
    """
    points = torch.rand(len(groups), 1, generator=generator, device=groups.device) * BELOW_ONE
    drawn = [
        _draw(similarity[block], groups[block, None] == groups[None, :], points[block])
        for block in query_blocks(len(groups), len(groups))  # as much as a processor caches
    ]
    return torch.cat(drawn)


def _draw(similarity: Tensor, excluded: Tensor, points: Tensor) -> Tensor:
    cumulative = similarity.masked_fill(excluded, -math.inf).softmax(dim=1).cumsum(dim=1)
    total = cumulative[:, -1:]  # about 1; not a number where all are excluded
    drawn = torch.searchsorted(cumulative, points * total, right=True)  # where it grows, so never an excluded column
    return torch.where(total > 0, drawn, -1).squeeze(1)


def itm_loss(
    match: Callable[[Tensor, Tensor], Tensor],
    image: Tensor,
    text: Tensor,
    groups: Tensor,
    temperature: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Image-text matching loss: each pair against a hard negative text and a hard negative image.

    Args:
        match: [N, D], [N, D] → [N, 2] logits: no match, match.
        image, text: [B, D], unit norm.
        groups: [B] int64; pairs of one group are never negatives. A row without a negative drops out.
    Returns:
        Two-class cross-entropy over the 3 B pairs.
    Source: ALBEF (2107.07651) §3.2.
    """
    similarity = (image.detach() / temperature.detach()) @ text.detach().T
    texts = hard_negatives(similarity, groups, generator)  # [B]
    images = hard_negatives(similarity.T.contiguous(), groups, generator)
    logits = match(torch.cat([image, image, _rows(image, images)]), torch.cat([text, _rows(text, texts), text]))
    matched = torch.ones_like(groups)
    target = torch.cat([matched * MATCH, matched * (1 - MATCH), matched * (1 - MATCH)])
    counts = torch.cat([matched, (texts >= 0).long(), (images >= 0).long()]).to(logits.dtype)
    losses = functional.cross_entropy(logits, target, reduction="none")
    return (losses * counts).sum() / counts.sum()


def _rows(table: Tensor, rows: Tensor) -> Tensor:
    """`table[rows]` for rows of which -1 does not count; its gradient, unlike that one's, adds up in a fixed order."""
    return functional.embedding(rows.clamp(min=0), table)


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
