"""Metrics as pure functions. Recall is a fraction in 0..1; items with equal int64 keys are relevant to each other."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data.geometry import RELATIONS
from core.data.overlap import paired_giou, paired_iou
from core.device import row_blocks
from core.records import MAJORITY, Interval

SCORE_BYTES = 32 * 2**20
"""Maximum memory of a block of scores, about the cache of a processor; determines the number of queries in it."""


class Members(NamedTuple):
    """Which gallery rows are relevant to each query."""

    rows: Tensor
    """[U, most] int64, rows of the gallery, padded."""
    exists: Tensor
    """[U, most] bool, which of them are not padding."""
    row_of_query: Tensor
    """[Q] int64 in 0..U-1"""


def first_relevant_ranks(scores: Tensor, query_groups: Tensor, gallery_groups: Tensor) -> Tensor:
    """Rank of the best relevant gallery item of each query; 1 is first.

    Ties count against the query, so a model that gives all items the same score ranks last.

    Args:
        scores: [Q, G], finite, higher is better.
        query_groups, gallery_groups: [Q] and [G] int64; equal means relevant.
    Returns:
        [Q] int64 in 1..G.
    Raises:
        ValueError: a query has nothing relevant in the gallery, or a score is not finite.
    """
    relevant = query_groups[:, None] == gallery_groups[None, :]  # [Q, G]
    if not relevant.any(dim=1).all():
        raise ValueError("a query has no relevant item in the gallery")
    if not scores.isfinite().all():
        raise ValueError("scores must be finite")
    best = scores.masked_fill(~relevant, -math.inf).amax(dim=1, keepdim=True)  # [Q, 1]
    return 1 + ((scores >= best) & ~relevant).sum(dim=1)


def chunked_ranks(
    queries: Tensor,
    gallery: Tensor,
    query_groups: Tensor,
    gallery_groups: Tensor,
    *,
    score_bytes: int = SCORE_BYTES,
) -> Tensor:
    """`first_relevant_ranks` of dot products, computed in blocks of queries, without the full [Q, G] matrix.

    Each score is computed and compared once: relevant ones are gathered instead of masked.

    Args:
        queries, gallery: [Q, D] and [G, D] float32.
        query_groups, gallery_groups: [Q] and [G] int64; equal means relevant.
        score_bytes: maximum memory of one block of scores.
    Returns:
        [Q] int64 in 1..G.
    Raises:
        ValueError: a query has nothing relevant in the gallery, or an embedding is not finite.
    """
    members = members_by_group(query_groups, gallery_groups)
    ranks = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for block, scores, relevant, best in _scored_blocks(queries, gallery, members, score_bytes):
        ranks[block] = 1 + count_true(scores >= best) - count_true(relevant >= best)
    return ranks


def rank_bounds(
    queries: Tensor, gallery: Tensor, members: Members, *, score_bytes: int = SCORE_BYTES
) -> tuple[Tensor, Tensor]:
    """Ranks [Q] of the first relevant item by dot products, with ties counted against the query, and for it.

    The first are those of `chunked_ranks`. The second are the best that any way of breaking ties can give.

    Args:
        queries, gallery: [Q, D] and [G, D] float32.
        members: relevant rows of the gallery.
        score_bytes: maximum memory of one block of scores.
    Raises:
        ValueError: an embedding is not finite.
    """
    against, favourable = (torch.empty(len(queries), dtype=torch.int64, device=queries.device) for _ in range(2))
    for block, scores, relevant, best in _scored_blocks(queries, gallery, members, score_bytes):
        against[block] = 1 + count_true(scores >= best) - count_true(relevant >= best)
        favourable[block] = 1 + count_true(scores > best)
    return against, favourable


def _scored_blocks(
    queries: Tensor, gallery: Tensor, members: Members, score_bytes: int
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """A block of queries, with its scores [q, G], those of its relevant items [q, most] and the best of these [q, 1].

    The memory of the scores is used again for the next block.
    """
    if not (queries.isfinite().all() and gallery.isfinite().all()):
        raise ValueError("embeddings must be finite")
    blocks = list(row_blocks(len(queries), len(gallery), max_bytes=score_bytes))
    memory = queries.new_empty(blocks[0].stop if blocks else 0, len(gallery))  # new pages would cost a third
    for block in blocks:
        scores = torch.matmul(queries[block], gallery.T, out=memory[: block.stop - block.start])
        rows = members.row_of_query[block]
        relevant = scores.gather(1, members.rows[rows]).masked_fill_(~members.exists[rows], -math.inf)
        yield block, scores, relevant, relevant.amax(dim=1, keepdim=True)


def count_true(mask: Tensor) -> Tensor:
    """Count true entries per row: [Q, G] bool → [Q] int32, on a CPU six times faster than the default, int64."""
    return mask.sum(dim=1, dtype=torch.int32)


def members_by_group(query_groups: Tensor, gallery_groups: Tensor) -> Members:
    """Gallery rows of each query's group.

    Args:
        query_groups, gallery_groups: [Q] and [G] int64; equal means relevant.
    Raises:
        ValueError: a query has nothing relevant in the gallery.
    """
    groups, index, counts = torch.unique(gallery_groups, return_inverse=True, return_counts=True)
    row_of_query = torch.searchsorted(groups, query_groups).clamp(max=len(groups) - 1)
    if not torch.equal(groups[row_of_query], query_groups):
        raise ValueError("a query has no relevant item in the gallery")
    return Members(*_padded(index.argsort(stable=True), counts), row_of_query)


def members_of_pairs(queries: Tensor, gallery: Tensor) -> Members:
    """Gallery rows that stand beside each query in a list of relevant pairs, which need not be equal groups.

    Args:
        queries, gallery: [P] int64, row of the query and of the gallery item of each pair; pairs may repeat. Every
            query has one, rows from 0.
    """
    pairs = torch.unique(torch.stack([queries, gallery]), dim=1)  # sorted by query
    counts = torch.bincount(pairs[0])
    return Members(*_padded(pairs[1], counts), torch.arange(len(counts), device=counts.device))


def _padded(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Values [sum of counts] as rows [U, most] of so many, and which of these are not padding."""
    exists = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
    rows = torch.zeros_like(exists, dtype=torch.int64)
    rows[exists] = values
    return rows, exists


def recall_at(ranks: Tensor, k: int) -> float:
    """Fraction of queries whose first relevant item is at rank k or better.

    Args:
        ranks: [Q] from 1, not empty.
    """
    return float((ranks <= k).double().mean())


def median_rank(ranks: Tensor) -> float:
    """Median of ranks [Q]; the mean of the two middle ones if Q is even."""
    return float(np.median(ranks.cpu().numpy()))


def chance_recall(members: Members, size: int, k: int) -> float:
    """Expected recall at k of a random order of a gallery of `size` items.

    Source: hypergeometric distribution, 1 − C(G − n, k) / C(G, k) for a query with n relevant items.
    """
    k = min(k, size)
    counts, index = torch.unique(members.exists.sum(dim=1), return_inverse=True)
    miss_probability = [
        math.prod((size - count - i) / (size - i) for i in range(k)) if size - count >= k else 0.0
        for count in counts.tolist()
    ]
    return float(np.mean(1 - np.array(miss_probability)[index[members.row_of_query].cpu().numpy()]))


def official_group_indices(groups: Tensor) -> Tensor:
    """Groups as assigned by the official GeoText-1652 evaluation script, with its off-by-one error.

    The first image of each building gets the group of the previous building, except for the very first image.

    Args:
        groups: [N] int64, images of one building in consecutive rows.
    Returns:
        [N] int64.
    """
    official = groups.clone()
    starts = (groups[1:] != groups[:-1]).nonzero().flatten() + 1
    official[starts] = groups[starts - 1]
    return official


def box_scores(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Mean IoU, GIoU and L1 of paired boxes, and the fraction with an IoU of at least 0.5.

    Args:
        predicted, target: [R, 4] x1 y1 x2 y2 in 0..1, R > 0.
    Returns:
        box_iou, box_giou, box_l1 (mean over coordinates), box_acc50.
    """
    iou = paired_iou(predicted, target)
    return {
        "box_iou": float(iou.mean()),
        "box_giou": float(paired_giou(predicted, target).mean()),
        "box_l1": float((predicted - target).abs().mean()),
        "box_acc50": float((iou >= 0.5).double().mean()),
    }


def confusion_matrix(predicted: Tensor, target: Tensor) -> Tensor:
    """Confusion of relations: [R], [R] int64 in 0..5 → [6, 6] counts; rows are the true, columns the predicted ones."""
    size = len(RELATIONS)
    return torch.bincount(target * size + predicted, minlength=size * size).view(size, size)


def relation_scores(predicted: Tensor, target: Tensor) -> dict[str, float]:
    """Accuracy, macro F1, and the accuracy of always predicting the most frequent relation.

    F1 is 2 TP / (2 TP + FP + FN), averaged over the relations that occur in `predicted` or `target`.

    Args:
        predicted, target: [R] int64 in 0..5, R > 0.
    Returns:
        relation_accuracy, relation_f1, relation_majority.
    """
    confusion = confusion_matrix(predicted, target).double()
    hits, support, guesses = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    occurs = (support + guesses) > 0
    f1 = 2 * hits[occurs] / (support + guesses)[occurs]
    return {
        "relation_accuracy": float(hits.sum() / confusion.sum()),
        "relation_f1": float(f1.mean()),
        MAJORITY: float(support.max() / confusion.sum()),
    }


def group_bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, draws: int = 1000, seed: int = 0
) -> Interval:
    """Mean of `values` with its 95 % bootstrap interval; resamples groups, since rows of a group are not independent.

    Args:
        values, groups: [N], N > 0.
        draws: number of resamples.
    Source: percentile intervals, Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    _, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)  # [draws, groups]
    means = (weights @ sums) / (weights @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(value=float(values.mean()), low=float(low), high=float(high))
