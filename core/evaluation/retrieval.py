"""Retrieval metrics of a model on a split: a quick validation after each epoch, and the full evaluation."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.device import row_blocks
from core.evaluation.metrics import (
    SCORE_BYTES,
    chance_recall,
    chunked_ranks,
    group_bootstrap,
    median_rank,
    official_group_indices,
    recall_at,
)
from core.evaluation.regions import measure_regions
from core.features.store import FeatureSplit
from core.model.model import CrossModalModel, require_finite
from core.model.views import ImageView, TextView
from core.records import RETRIEVAL_KEYS, Evaluation, Samples

Protocol = Literal["image", "building", "geotext-official"]
"""Which images are relevant to a caption: its own, any of its building, or those of `official_group_indices`."""

EMBEDDED_AT_ONCE = 8192
"""Rows per pass of the model."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Embeddings of a split: float32, unit norm."""

    images: Tensor
    """[N, D]"""
    captions: Tensor
    """[M, D]"""
    sentences: Tensor
    """[R, D]"""


@torch.no_grad()
def embed_split(model: CrossModalModel, split: FeatureSplit) -> Embeddings:
    """Embed a split in evaluation mode; equal texts are embedded once.

    Raises:
        DivergedError: an embedding is not finite.
    """
    was_training = model.training
    model.eval()
    images = torch.cat([model.embed_images(split.images[rows]) for rows in _runs(len(split.images))])
    texts = torch.cat([model.embed_texts(split.texts[rows]) for rows in _runs(len(split.texts))])
    model.train(was_training)
    images, texts = require_finite(images, "embeddings"), require_finite(texts, "embeddings")
    return Embeddings(images.float(), texts[split.caption_text].float(), texts[split.sentence_text].float())


def _runs(rows: int) -> list[slice]:
    return [slice(start, start + EMBEDDED_AT_ONCE) for start in range(0, rows, EMBEDDED_AT_ONCE)]


@dataclass(frozen=True, slots=True)
class Validation:
    """Validation metrics of one epoch, named as in EpochMetrics; relevance is by building."""

    t2i_r1: float
    t2i_r5: float
    t2i_r10: float
    i2t_r1: float
    i2t_r5: float
    i2t_r10: float
    recall_mean: float
    t2i_median_rank: float
    i2t_median_rank: float
    box_iou: float | None
    relation_accuracy: float | None
    """None if the split has no regions."""
    gallery_images: int
    gallery_texts: int


def validate(model: CrossModalModel, split: FeatureSplit) -> Validation:
    """Measure recall and median rank by building, boxes and relations.

    Raises:
        DivergedError: an output of the model is not finite.
    """
    embedded = embed_split(model, split)
    captions = split.groups[split.caption_image]
    t2i = chunked_ranks(embedded.captions, embedded.images, captions, split.groups)
    i2t = chunked_ranks(embedded.images, embedded.captions, split.groups, captions)
    regions = measure_regions(model, split, embedded.images, embedded.sentences).metrics
    return Validation(
        **_retrieval_figures(t2i, i2t),
        box_iou=regions.get("box_iou"),
        relation_accuracy=regions.get("relation_accuracy"),
        gallery_images=len(embedded.images),
        gallery_texts=len(embedded.captions),
    )


@dataclass(frozen=True, slots=True)
class RankingRule:
    """Which items are relevant, and how many top candidates the matching head re-ranks."""

    protocol: Protocol
    rerank: int = 0
    """Clipped to the gallery size; 0 disables re-ranking."""


@dataclass(frozen=True, slots=True)
class Search:
    """Queries and gallery of one retrieval direction."""

    queries: Tensor
    """[Q, D]"""
    gallery: Tensor
    """[G, D]"""
    query_keys: Tensor
    """[Q] int64; items with an equal key are relevant."""
    gallery_keys: Tensor
    """[G] int64"""
    texts_ask: bool
    """Whether the queries are the texts."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """An evaluation, and its values per query for paired comparisons."""

    evaluation: Evaluation
    samples: dict[str, Samples]


def evaluate(
    model: CrossModalModel, split: FeatureSplit, *, split_name: str, protocol: Protocol, rerank: int = 0
) -> Evaluation:
    """All retrieval metrics on one split; see `measure_retrieval`.

    Args:
        rerank: number of top candidates re-ranked by the matching head; 0 disables re-ranking.
    Raises:
        DivergedError: an output of the model is not finite.
    """
    rule = RankingRule(protocol, rerank)
    return measure_retrieval(model, embed_split(model, split), split, rule, split_name=split_name).evaluation


def measure_retrieval(
    model: CrossModalModel,
    embedded: Embeddings,
    split: FeatureSplit,
    rule: RankingRule,
    *,
    split_name: str,
) -> Measurement:
    """Measure recall and median rank in both directions, with chance levels and 95 % intervals over buildings.

    Args:
        embedded: embeddings of `split`.
    Raises:
        DivergedError: a matching score is not finite.
    """
    image_keys, caption_keys = _relevance_keys(split, rule.protocol)
    images, captions = embedded.images, embedded.captions
    t2i = _ranks(model, Search(captions, images, caption_keys, image_keys, texts_ask=True), rule.rerank)
    i2t = _ranks(model, Search(images, captions, image_keys, caption_keys, texts_ask=False), rule.rerank)
    metrics = {
        **_retrieval_figures(t2i.final, i2t.final),
        **{f"chance_t2i_r{k}": chance_recall(caption_keys, image_keys, k) for k in (1, 5, 10)},
        **{f"chance_i2t_r{k}": chance_recall(image_keys, caption_keys, k) for k in (1, 5, 10)},
    }
    if rule.rerank:
        ceilings = {"t2i_ceiling": recall_at(t2i.first, rule.rerank), "i2t_ceiling": recall_at(i2t.first, rule.rerank)}
        metrics |= ceilings
    samples = _hits("t2i", t2i.final, split.groups[split.caption_image]) | _hits("i2t", i2t.final, split.groups)
    evaluation = Evaluation(
        split=split_name,
        protocol=rule.protocol,
        rerank=rule.rerank,
        queries_text=len(embedded.captions),
        queries_image=len(embedded.images),
        groups=len(torch.unique(split.groups)),
        metrics=metrics,
        intervals={name: group_bootstrap(sample.values, sample.groups) for name, sample in samples.items()},
    )
    return Measurement(evaluation, samples)


def _hits(direction: str, ranks: Tensor, groups: Tensor) -> dict[str, Samples]:
    ranks, groups = ranks.cpu(), groups.cpu()
    return {f"{direction}_r{k}": Samples((ranks <= k).double().numpy(), groups.numpy()) for k in (1, 5, 10)}


@dataclass(frozen=True, slots=True)
class _Ranks:
    first: Tensor
    """[Q], by contrastive similarity."""
    final: Tensor
    """[Q], after re-ranking if there is any."""


def _ranks(model: CrossModalModel, search: Search, rerank: int) -> _Ranks:
    first = chunked_ranks(search.queries, search.gallery, search.query_keys, search.gallery_keys)
    return _Ranks(first, rerank_ranks(model, search, first, k=rerank) if rerank else first)


@torch.no_grad()
def rerank_ranks(model: CrossModalModel, search: Search, first: Tensor, *, k: int) -> Tensor:
    """Ranks after the matching head has re-ordered the top k candidates of each query.

    Only the shortlist is permuted, so a query whose first relevant item is below it keeps its rank. Ties count against
    the query.

    Args:
        first: [Q] int64, ranks by contrastive similarity.
        k: length of the shortlist, clipped to the gallery size.
    Returns:
        [Q] int64 in 1..G.
    Raises:
        DivergedError: a matching score is not finite.
    Source: ALBEF (2107.07651) §5, image-text retrieval.
    """
    queries, gallery = search.queries, search.gallery
    k = min(k, len(gallery))
    final = first.clone()
    for block in row_blocks(len(queries), max(len(gallery), k * queries.shape[1] * 8), max_bytes=SCORE_BYTES):
        shortlist = (queries[block] @ gallery.T).topk(k, dim=1).indices  # [q, k]
        asking = queries[block].repeat_interleave(k, dim=0)  # [q k, D]
        answering = gallery[shortlist.flatten()]  # [q k, D]
        images, texts = (answering, asking) if search.texts_ask else (asking, answering)
        odds = model.match_odds(ImageView(images), TextView(texts))
        scores = require_finite(odds, "matching scores").view(-1, k)
        relevant = search.query_keys[block][:, None] == search.gallery_keys[shortlist]
        best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
        reranked = 1 + ((scores >= best) & ~relevant).sum(dim=1)
        final[block] = torch.where(relevant.any(dim=1), reranked, first[block].clamp(min=k + 1))
    return final


def _relevance_keys(split: FeatureSplit, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """Keys of images [N] and captions [M]; equal means relevant."""
    match protocol:
        case "image":
            images = torch.arange(len(split.groups), device=split.groups.device)
        case "building":
            images = split.groups
        case "geotext-official":
            images = official_group_indices(split.groups)
    return images, images[split.caption_image]


def _retrieval_figures(t2i: Tensor, i2t: Tensor) -> dict[str, float]:
    values = [recall_at(ranks, k) for ranks in (t2i, i2t) for k in (1, 5, 10)]
    return {
        **dict(zip(RETRIEVAL_KEYS, values, strict=True)),
        "recall_mean": sum(values) / len(values),
        "t2i_median_rank": median_rank(t2i),
        "i2t_median_rank": median_rank(i2t),
    }
