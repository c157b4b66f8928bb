"""Evaluation of a model on a split: the light version after each epoch, and the full one for the record."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from core.features import FeatureSplit
from core.metrics import (
    box_scores,
    chance_recall,
    chunked_ranks,
    group_bootstrap,
    median_rank,
    official_group_indices,
    query_blocks,
    recall_at,
    relation_scores,
)
from core.model import CrossModalModel
from core.records import RETRIEVAL_KEYS, Evaluation

Protocol = Literal["image", "building", "geotext-official"]
"""What counts as relevant: the caption's own image, any of its building, or the official script's off-by-one."""

EMBEDDED_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Everything of a split in the joint space, unit norm, float32."""

    images: Tensor
    """[N, D]"""
    captions: Tensor
    """[M, D]"""
    sentences: Tensor
    """[R, D]"""


@torch.no_grad()
def embed_split(model: CrossModalModel, split: FeatureSplit) -> Embeddings:
    """Embed a split in evaluation mode; equal texts are embedded once."""
    was_training = model.training
    model.eval()
    images = torch.cat([model.embed_images(rows) for rows in torch.split(split.images, EMBEDDED_AT_ONCE)])
    texts = torch.cat([model.embed_texts(rows) for rows in torch.split(split.texts, EMBEDDED_AT_ONCE)])
    model.train(was_training)
    return Embeddings(images.float(), texts[split.caption_text].float(), texts[split.sentence_text].float())


def validate(model: CrossModalModel, split: FeatureSplit) -> dict[str, Any]:
    """The figures of one epoch, as the fields of EpochMetrics: recall by building, median ranks, box and relation."""
    embedded = embed_split(model, split)
    captions = split.groups[split.caption_image]
    t2i = chunked_ranks(embedded.captions, embedded.images, captions, split.groups)
    i2t = chunked_ranks(embedded.images, embedded.captions, split.groups, captions)
    recalls = _recalls(t2i, i2t)
    boxes, relations, _ = _region_scores(model, split, embedded)
    return {
        **recalls,
        "recall_mean": sum(recalls.values()) / len(recalls),
        "t2i_median_rank": median_rank(t2i),
        "i2t_median_rank": median_rank(i2t),
        "box_iou": boxes.get("box_iou"),
        "relation_accuracy": relations.get("relation_accuracy"),
        "gallery_images": len(embedded.images),
        "gallery_texts": len(embedded.captions),
    }


def evaluate(
    model: CrossModalModel, split: FeatureSplit, *, split_name: str, protocol: Protocol, rerank: int = 0
) -> Evaluation:
    """All metrics on one split.

    Args:
        rerank: how many of the best candidates the matching head re-ranks, clipped to the gallery; 0 for none.
    """
    embedded = embed_split(model, split)
    image_keys, caption_keys = _relevance_keys(split, protocol)
    t2i = _ranks(model, embedded.captions, embedded.images, (caption_keys, image_keys), rerank, texts_ask=True)
    i2t = _ranks(model, embedded.images, embedded.captions, (image_keys, caption_keys), rerank, texts_ask=False)
    recalls = _recalls(t2i.final, i2t.final)
    boxes, relations, mean_box = _region_scores(model, split, embedded)
    metrics = {
        **recalls,
        "recall_mean": sum(recalls.values()) / len(recalls),
        "t2i_median_rank": median_rank(t2i.final),
        "i2t_median_rank": median_rank(i2t.final),
        **{f"chance_t2i_r{k}": chance_recall(caption_keys, image_keys, k) for k in (1, 5, 10)},
        **{f"chance_i2t_r{k}": chance_recall(image_keys, caption_keys, k) for k in (1, 5, 10)},
        **boxes,
        **mean_box,
        **relations,
    }
    if rerank:
        metrics |= {"t2i_ceiling": recall_at(t2i.first, rerank), "i2t_ceiling": recall_at(i2t.first, rerank)}
    asked_by_text, asked_by_image = split.groups[split.caption_image].cpu().numpy(), split.groups.cpu().numpy()
    intervals = {}
    for direction, ranks, groups in (("t2i", t2i.final, asked_by_text), ("i2t", i2t.final, asked_by_image)):
        for k in (1, 5, 10):
            hits = (ranks <= k).double().cpu().numpy()
            intervals[f"{direction}_r{k}"] = group_bootstrap(hits, groups)
    return Evaluation(
        split=split_name,
        protocol=protocol,
        rerank=rerank,
        queries_text=len(embedded.captions),
        queries_image=len(embedded.images),
        groups=len(torch.unique(split.groups)),
        metrics=metrics,
        intervals=intervals,
    )


@dataclass(frozen=True, slots=True)
class _Ranks:
    first: Tensor
    """[Q] by contrastive similarity."""
    final: Tensor
    """[Q] after re-ranking; the same without."""


def _ranks(
    model: CrossModalModel,
    queries: Tensor,
    gallery: Tensor,
    keys: tuple[Tensor, Tensor],
    rerank: int,
    *,
    texts_ask: bool,
) -> _Ranks:
    first = chunked_ranks(queries, gallery, *keys)
    if rerank == 0:
        return _Ranks(first, first)
    return _Ranks(first, rerank_ranks(model, queries, gallery, keys, first, k=rerank, texts_ask=texts_ask))


@torch.no_grad()
def rerank_ranks(
    model: CrossModalModel,
    queries: Tensor,
    gallery: Tensor,
    keys: tuple[Tensor, Tensor],
    first: Tensor,
    *,
    k: int,
    texts_ask: bool,
) -> Tensor:
    """Ranks after the matching head has put the best k candidates of each query in a new order.

    The new list is a permutation of that shortlist above the rest, so a query whose first relevant item lies below
    the shortlist keeps its rank. Ties count against the query.

    Args:
        keys: of queries and of gallery; equal means relevant.
        first: [Q] ranks by contrastive similarity.
        texts_ask: whether the queries are the texts.
    """
    query_keys, gallery_keys = keys
    k = min(k, len(gallery))
    final = first.clone()
    for block in query_blocks(len(queries), max(len(gallery), k * queries.shape[1] * 8)):
        shortlist = (queries[block] @ gallery.T).topk(k, dim=1).indices  # [q, k]
        asking = queries[block].repeat_interleave(k, dim=0)
        answering = gallery[shortlist.flatten()]
        logits = model.match(answering, asking) if texts_ask else model.match(asking, answering)
        scores = (logits[:, 1] - logits[:, 0]).view(-1, k)
        relevant = query_keys[block][:, None] == gallery_keys[shortlist]
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


def _recalls(t2i: Tensor, i2t: Tensor) -> dict[str, float]:
    values = [recall_at(ranks, k) for ranks in (t2i, i2t) for k in (1, 5, 10)]
    return dict(zip(RETRIEVAL_KEYS, values, strict=True))


@torch.no_grad()
def _region_scores(
    model: CrossModalModel, split: FeatureSplit, embedded: Embeddings
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Box scores, relation scores, and the box scores of always answering the split's mean box."""
    if len(split.boxes) == 0:
        return {}, {}, {}
    where = embedded.images[split.sentence_image]
    boxes = box_scores(model.locate(where, embedded.sentences), split.boxes)
    mean_box = box_scores(split.boxes.mean(dim=0).expand_as(split.boxes), split.boxes)
    related = split.relations >= 0
    relations: dict[str, float] = {}
    if related.any():
        predicted = model.relate(where[related], embedded.sentences[related]).argmax(dim=1)
        relations = relation_scores(predicted, split.relations[related])
    return boxes, relations, {f"{name}_mean_box": value for name, value in mean_box.items()}
