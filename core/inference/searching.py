"""Answers to one query: the nearest by similarity, of which the best are re-ranked as evaluation does it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.errors import UserError
from core.evaluation.embedding import pair_blocks
from core.evaluation.ranking import Order, Search, matching_odds
from core.records import Corners

if TYPE_CHECKING:
    from core.inference.image_index import ImageIndex
    from core.inference.retrieval_model import Picture, RetrievalModel
    from core.inference.text_index import TextIndex


@dataclass(frozen=True, slots=True)
class Found:
    """One answer, by its row in the index."""

    row: int
    score: float
    """Cosine similarity."""
    box: Corners | None
    relation: str | None
    match: float | None
    """Probability by the matching head, of those that it re-ranked."""


def search_images(model: "RetrievalModel", text: str, index: "ImageIndex", top: int) -> list[Found]:
    """The best pictures for a text; see `RetrievalModel.search`."""
    texts = model.view_texts([text])
    similarity, rows = _candidates(model, index, texts.embedded, top)
    images = index.view(rows, model.device)
    search = Search(texts.embedded, images.embedded, images, texts, texts_ask=True)
    return _answers(model, search, similarity, rows, top)


def search_texts(model: "RetrievalModel", image: "Picture", index: "TextIndex", top: int) -> list[Found]:
    """The best texts for a picture; see `RetrievalModel.search`."""
    images = model.view_images([image])
    similarity, rows = _candidates(model, index, images.embedded, top)
    texts = index.view(rows, model.device)
    search = Search(images.embedded, texts.embedded, images, texts, texts_ask=False)
    return _answers(model, search, similarity, rows, top)


def _candidates(
    model: "RetrievalModel", index: "ImageIndex | TextIndex", query: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """Similarity and rows [k] of what may be an answer: as many as are asked for, or as are re-ranked."""
    if not len(index):
        raise UserError("the index is empty, so there is nothing to search")
    if top < 1:
        raise UserError(f"{top} answers are asked for", how="ask for at least one")
    depth = model.order.depth if model.order else 0
    scores, rows = index.search(query.cpu().numpy(), max(top, depth))
    return torch.from_numpy(scores[0]), torch.from_numpy(rows[0])


@torch.no_grad()
def _answers(model: "RetrievalModel", search: Search, similarity: Tensor, rows: Tensor, top: int) -> list[Found]:
    """The best candidates in their final order, with the box of the text in the picture.

    Args:
        search: of one query, over the candidates in their order by similarity.
        similarity, rows: [k], of the candidates.
    """
    odds = _odds(model, search, model.order) if model.order else torch.zeros(0)
    order = _reordered(model, similarity, odds, model.order) if model.order else torch.arange(len(rows))
    best = order[:top]
    chances = odds.sigmoid().tolist()
    return [
        Found(int(rows[place]), float(similarity[place]), *answer, chances[place] if place < len(chances) else None)
        for place, answer in zip(best.tolist(), _grounded(model, search, best), strict=True)
    ]


def _grounded(model: "RetrievalModel", search: Search, best: Tensor) -> list[tuple[Corners | None, str | None]]:
    """Box and relation of the text in the picture, for the query with each of these candidates."""
    best = best.to(search.gallery.device)
    query = torch.zeros_like(best)
    image_rows, text_rows = (best, query) if search.texts_ask else (query, best)
    answers = []
    for pairs in pair_blocks(len(best), search.images, search.texts):
        sentences = search.texts.rows(text_rows[pairs])
        answers += model.answers(*model.model.ground(search.images.rows(image_rows[pairs]), sentences, sentences))
    return answers


def _odds(model: "RetrievalModel", search: Search, order: Order) -> Tensor:
    """Log-odds [k] that the query matches the candidates that are re-ranked."""
    candidates = torch.arange(min(order.depth, len(search.gallery)), device=search.gallery.device)
    return matching_odds(model.model, search, slice(0, 1), candidates[None])[0].cpu()


def _reordered(model: "RetrievalModel", similarity: Tensor, odds: Tensor, order: Order) -> Tensor:
    """Positions of the candidates: those with log-odds in their new order, then the others."""
    depth = len(odds)
    scores = similarity[:depth] / model.model.temperature.cpu() + order.weight * odds
    best = scores.argsort(descending=True, stable=True)
    return torch.cat([best, torch.arange(depth, len(similarity))])
