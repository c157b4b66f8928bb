"""Ranks of the first relevant item of each query, by similarity and after re-ranking with the matching head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self, get_args

import torch
from torch import Tensor

from core.device import row_blocks
from core.evaluation.embedding import blocks_of_texts, evaluation_mode, pair_blocks
from core.evaluation.metrics import (
    SCORE_BYTES,
    Members,
    chunked_ranks,
    count_true,
    members_by_group,
    members_of_pairs,
    rank_bounds,
)
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


Ties = Literal["against", "for"]
"""Whether irrelevant items with the score of the best relevant one count as above it (against the query) or below."""
TIES: tuple[Ties, ...] = get_args(Ties)


class AnyRelevance(Protocol):
    """What counts as relevant in a gallery, and how ties with it count."""

    @property
    def ties(self) -> Ties: ...

    def counting(self, ties: Ties) -> Self:
        """The same with ties counted this way."""

    def members(self) -> Members:
        """The relevant rows of the gallery, for each query."""

    def among(self, block: slice, candidates: Tensor) -> Tensor:
        """Which of the candidates [q, k] of a block of queries are relevant to their query: [q, k] bool."""


class Relevance(NamedTuple):
    """Items of equal int64 keys are relevant to each other."""

    queries: Tensor
    """[Q]"""
    gallery: Tensor
    """[G]"""
    ties: Ties = "against"

    def counting(self, ties: Ties) -> Self:
        """The same with ties counted this way."""
        return self._replace(ties=ties)

    def members(self) -> Members:
        """The relevant rows of the gallery, for each query."""
        return members_by_group(self.queries, self.gallery)

    def among(self, block: slice, candidates: Tensor) -> Tensor:
        """Which of the candidates [q, k] of a block of queries are relevant to their query: [q, k] bool."""
        return self.queries[block][:, None] == self.gallery[candidates]


class PairedRelevance(NamedTuple):
    """Items are relevant to each other that stand in a list of pairs, as a text does with each of its images."""

    queries: Tensor
    """[P] int64, row of the query of each pair; every query has one"""
    gallery: Tensor
    """[P] int64, row of the gallery item of each pair"""
    ties: Ties = "against"

    def counting(self, ties: Ties) -> Self:
        """The same with ties counted this way."""
        return self._replace(ties=ties)

    def members(self) -> Members:
        """The relevant rows of the gallery, for each query."""
        return members_of_pairs(self.queries, self.gallery)

    def among(self, block: slice, candidates: Tensor) -> Tensor:
        """Which of the candidates [q, k] of a block of queries are relevant to their query: [q, k] bool."""
        within = (self.queries >= block.start) & (self.queries < block.stop)
        size = 1 + max(int(self.gallery.max()), int(candidates.max()))
        relevant = torch.zeros(len(candidates), size, dtype=torch.bool, device=candidates.device)
        relevant[self.queries[within] - block.start, self.gallery[within]] = True
        return relevant.gather(1, candidates)


def rank_bounds_by_similarity(search: Search, relevance: AnyRelevance) -> tuple[Tensor, Tensor]:
    """Rank [Q] of the first relevant item of each query by similarity, with ties against the query, and for it."""
    return rank_bounds(search.queries, search.gallery, relevance.members())


def ranks_by_similarity(search: Search, relevance: Relevance) -> Tensor:
    """Rank [Q] of the first relevant item of each query by similarity; ties count against the query."""
    return chunked_ranks(search.queries, search.gallery, relevance.queries, relevance.gallery)


def rerank(
    model: CrossModalModel,
    search: Search,
    relevances: Sequence[AnyRelevance],
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
    relevances: Sequence[AnyRelevance],
    firsts: Sequence[Tensor],
    orders: Sequence[Order],
) -> list[list[Tensor]]:
    """Ranks in each of several orders, under each notion of relevance; the matching head runs once for all of them.

    The new list is a permutation of those candidates above the rest: a query whose first relevant item is below them
    keeps its rank. Ties count as each relevance says. A weight of 0 leaves the order by similarity as it is.

    Args:
        firsts: [Q] ranks by similarity, for each of `relevances`, with ties counted as that one says.
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
        relevant = [relevance.among(block, candidates) for relevance in relevances]
        for order, ranks in zip(orders, finals, strict=True):
            if order.weight:
                best = slice(order.depth)
                scores = similarity[:, best] / model.temperature + order.weight * odds[:, best]
                for final, first, hits, relevance in zip(ranks, firsts, relevant, relevances, strict=True):
                    final[block] = _reranked(scores, hits[:, best], first[block], relevance.ties)
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


def _reranked(scores: Tensor, relevant: Tensor, first: Tensor, ties: Ties) -> Tensor:
    """Ranks [q] by the scores [q, k] of candidates for queries that had something relevant among their best k."""
    k = scores.shape[1]
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    if ties == "for":
        return torch.where(relevant.any(dim=1), 1 + count_true(scores > best), first.clamp(min=k + 1))
    ranks = 1 + count_true((scores >= best) & ~relevant)
    # What ties with the last candidate counts as below it, although topk may have picked the relevant one of them.
    return torch.where((first <= k) & relevant.any(dim=1), ranks, first.clamp(min=k + 1))
