"""Ranks of the first relevant item of each query, by similarity and after re-ranking with the matching head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.device import row_blocks
from core.evaluation.embedding import blocks_of_texts, evaluation_mode, pair_blocks
from core.evaluation.metrics import SCORE_BYTES, chunked_ranks, count_true
from core.model.model import CrossModalModel, require_finite
from core.model.views import ImageView, TextView

CANDIDATE_NUMBERS = 8
"""Numbers in memory for each candidate of a block of queries: its rows, scores and relevance."""


@dataclass(frozen=True, slots=True, eq=False)
class RankingRule:
    """How a gallery is put in order."""

    rerank: int = 0
    """Best candidates that are re-ranked, clipped to the gallery; 0 for none."""
    rerank_weight: float = 1.0
    """Candidates are ordered by similarity / temperature + this weight × log-odds of a match; 0: by similarity."""
    bank: Tensor | None = None
    """[B, D] embeddings of training captions that text queries are normalised with; None for plain similarities."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Queries over a gallery, in one of the two directions."""

    queries: Tensor
    """[Q, E]; dot products with the gallery are similarities."""
    gallery: Tensor
    """[G, E]"""
    images: ImageView
    texts: TextView
    """Queries and gallery as the matching head sees them."""
    texts_ask: bool
    """Whether the queries are the texts."""


class Order(NamedTuple):
    """How candidates are put in a new order."""

    depth: int
    """Number of best candidates, clipped to the gallery."""
    weight: float
    """They are ordered by similarity / temperature + this weight × log-odds of a match; 0: by similarity."""


class Relevance(NamedTuple):
    """What counts as relevant: items of equal int64 keys."""

    queries: Tensor
    """[Q]"""
    gallery: Tensor
    """[G]"""


def ranks_by_similarity(search: Search, relevance: Relevance) -> Tensor:
    """Rank [Q] of the first relevant item of each query by similarity; ties count against the query."""
    return chunked_ranks(search.queries, search.gallery, relevance.queries, relevance.gallery)


def rerank(
    model: CrossModalModel,
    search: Search,
    relevances: Sequence[Relevance],
    firsts: Sequence[Tensor],
    rule: RankingRule,
) -> list[Tensor]:
    """Ranks after the best candidates of each query were put in a new order, under each notion of relevance.

    Args:
        firsts: [Q] ranks by similarity, for each of `relevances`.
    """
    (finals,) = rerank_in_each(model, search, relevances, firsts, [Order(rule.rerank, rule.rerank_weight)])
    return finals


@torch.no_grad()
def rerank_in_each(
    model: CrossModalModel,
    search: Search,
    relevances: Sequence[Relevance],
    firsts: Sequence[Tensor],
    orders: Sequence[Order],
) -> list[list[Tensor]]:
    """Ranks in each of several orders, under each notion of relevance; the matching head runs once for all of them.

    The new list is a permutation of those candidates above the rest: a query whose first relevant item is below them
    keeps its rank. Ties count against the query. A weight of 0 leaves the order by similarity as it is.

    Args:
        firsts: [Q] ranks by similarity, for each of `relevances`.
    Returns:
        [Q] ranks for each of `orders` and, in each, of `relevances`.
    """
    finals = [[first.clone() for first in firsts] for _ in orders]
    k = min(max((order.depth for order in orders if order.weight), default=0), len(search.gallery))
    if k == 0:
        return finals
    columns = max(len(search.gallery), k * CANDIDATE_NUMBERS)
    for block in row_blocks(len(search.queries), columns, max_bytes=SCORE_BYTES):
        similarity, candidates = (search.queries[block] @ search.gallery.T).topk(k, dim=1)  # [q, k]
        odds = matching_odds(model, search, block, candidates)
        relevant = [relevance.queries[block][:, None] == relevance.gallery[candidates] for relevance in relevances]
        for order, ranks in zip(orders, finals, strict=True):
            if order.weight:
                best = slice(order.depth)
                scores = similarity[:, best] / model.temperature + order.weight * odds[:, best]
                for final, first, hits in zip(ranks, firsts, relevant, strict=True):
                    final[block] = _reranked(scores, hits[:, best], first[block])
    return finals


def matching_odds(model: CrossModalModel, search: Search, block: slice, candidates: Tensor) -> Tensor:
    """Log-odds [q, k] that the queries of a block match their candidates.

    Args:
        candidates: [q, k], rows of the gallery.
    Raises:
        DivergedError: one is not finite.
    """
    queries = torch.arange(block.start, block.stop, device=candidates.device)
    odds = torch.empty(candidates.shape, device=candidates.device)
    with evaluation_mode(model):
        if search.texts_ask:
            text_rows = queries.repeat_interleave(candidates.shape[1])
            for pairs in pair_blocks(len(text_rows), search.images, search.texts):
                images, texts = search.images.rows(candidates.flatten()[pairs]), search.texts.rows(text_rows[pairs])
                odds.view(-1)[pairs] = model.match_odds(images, texts)
        else:
            for asking, best in blocks_of_texts(candidates.shape, search.images, search.texts):
                text_rows = candidates[asking, best]
                images, texts = search.images.rows(queries[asking]), search.texts.rows(text_rows.flatten())
                odds[asking, best] = model.match_odds(images, texts).view(text_rows.shape)
    return require_finite(odds, "matching scores")


def _reranked(scores: Tensor, relevant: Tensor, first: Tensor) -> Tensor:
    """Ranks [q] by the scores [q, k] of candidates for queries that had something relevant among their best k."""
    k = scores.shape[1]
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    ranks = 1 + count_true((scores >= best) & ~relevant)
    # What ties with the last candidate counts as below it, although topk may have picked the relevant one of them.
    return torch.where((first <= k) & relevant.any(dim=1), ranks, first.clamp(min=k + 1))
