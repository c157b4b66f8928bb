"""Retrieval metrics of a model on a split: a quick validation after each epoch, and the full evaluation."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from core.evaluation.embedding import EmbeddedSplit, embed_split
from core.evaluation.metrics import chance_recall, group_bootstrap, median_rank, official_group_indices, recall_at
from core.evaluation.query_bank import normalise
from core.evaluation.ranking import RankingRule, Relevance, Search, ranks_by_similarity, rerank
from core.evaluation.regions import measure_regions
from core.features.store import FeatureSplit
from core.model.model import CrossModalModel
from core.records import RETRIEVAL_KEYS, Evaluation, Samples

Protocol = Literal["image", "building", "geotext-official"]
"""Which images are relevant to a caption: its own, any of its building, or those of `official_group_indices`."""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


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
    gallery_groups: int


def validate(model: CrossModalModel, split: FeatureSplit) -> Validation:
    """Measure recall and median rank by building, boxes and relations.

    Raises:
        DivergedError: an output of the model is not finite.
    """
    embedded = embed_split(model, split)
    t2i, i2t = _ranks_by_building(embedded)
    regions = measure_regions(model, embedded).metrics
    return Validation(
        **retrieval_figures(t2i, i2t),
        box_iou=regions.get("box_iou"),
        relation_accuracy=regions.get("relation_accuracy"),
        gallery_images=len(embedded.images.embedded),
        gallery_texts=len(embedded.captions.embedded),
        gallery_groups=len(torch.unique(split.groups)),
    )


def sample_validation(model: CrossModalModel, split: FeatureSplit) -> dict[str, Samples]:
    """The values per query and region whose means `validate` gives: recalls by building, boxes and relations.

    Raises:
        DivergedError: an output of the model is not finite.
    """
    embedded = embed_split(model, split)
    return hits_of(*_ranks_by_building(embedded), split) | measure_regions(model, embedded).samples


def _ranks_by_building(embedded: EmbeddedSplit) -> tuple[Tensor, Tensor]:
    """Ranks by similarity of captions over images, and of images over captions."""
    t2i, i2t = (
        ranks_by_similarity(search, relevance_of(embedded.split, "building", search))
        for search in both_directions(embedded)
    )
    return t2i, i2t


@dataclass(frozen=True, slots=True)
class Measurement:
    """An evaluation, and the hits of single queries behind it, for paired comparisons."""

    evaluation: Evaluation
    samples: dict[str, Samples]


def measure_retrieval(
    model: CrossModalModel, embedded: EmbeddedSplit, rule: RankingRule, *, split_name: str
) -> dict[Protocol, Measurement]:
    """Recall and median rank in both directions by each protocol, with chance and 95 % intervals over buildings.

    All protocols are measured on the same order of the gallery, which is the costly part.
    """
    split = embedded.split
    t2i, i2t = both_directions(embedded, bank=rule.bank)
    text_ranks, image_ranks = _ranks(model, split, t2i, rule), _ranks(model, split, i2t, rule)
    measurements: dict[Protocol, Measurement] = {}
    for protocol in PROTOCOLS:
        ranks = _BothRanks(text_ranks[protocol], image_ranks[protocol])
        captions, images = relevance_of(split, protocol, t2i)
        samples = hits_of(ranks.t2i.final, ranks.i2t.final, split)
        evaluation = Evaluation(
            split=split_name,
            protocol=protocol,
            rerank=rule.rerank,
            queries_text=len(captions),
            queries_image=len(images),
            groups=len(torch.unique(split.groups)),
            metrics=_metrics(ranks, captions, images, rule.rerank),
            intervals={name: group_bootstrap(sample.values, sample.groups) for name, sample in samples.items()},
            rerank_weight=rule.rerank_weight if rule.rerank else None,
            query_bank="none" if rule.bank is None else "train_captions",
        )
        measurements[protocol] = Measurement(evaluation, samples)
    return measurements


def both_directions(embedded: EmbeddedSplit, *, bank: Tensor | None = None) -> tuple[Search, Search]:
    """Captions over images, and images over captions.

    Args:
        bank: [B, D], what the similarities of captions to images are normalised with.
    """
    images, captions = embedded.images, embedded.captions
    asking, answering = captions.embedded, images.embedded
    if bank is not None:
        asking, answering = normalise(asking, answering, bank)
    return (
        Search(asking, answering, images, captions, texts_ask=True),
        Search(images.embedded, captions.embedded, images, captions, texts_ask=False),
    )


def relevance_of(split: FeatureSplit, protocol: Protocol, search: Search) -> Relevance:
    """What counts as relevant in one of the two directions."""
    match protocol:
        case "image":
            images = torch.arange(len(split.groups), device=split.groups.device)
        case "building":
            images = split.groups
        case "geotext-official":
            images = official_group_indices(split.groups)
    captions = images[split.caption_image]
    return Relevance(captions, images) if search.texts_ask else Relevance(images, captions)


@dataclass(frozen=True, slots=True)
class _Ranks:
    first: Tensor
    """[Q] by similarity."""
    final: Tensor
    """[Q] after re-ranking; the same without."""


@dataclass(frozen=True, slots=True)
class _BothRanks:
    t2i: _Ranks
    i2t: _Ranks


def _ranks(model: CrossModalModel, split: FeatureSplit, search: Search, rule: RankingRule) -> dict[Protocol, _Ranks]:
    relevances = [relevance_of(split, protocol, search) for protocol in PROTOCOLS]
    firsts = [ranks_by_similarity(search, relevance) for relevance in relevances]
    finals = rerank(model, search, relevances, firsts, rule) if rule.rerank else firsts
    return dict(zip(PROTOCOLS, map(_Ranks, firsts, finals), strict=True))


def _metrics(ranks: _BothRanks, captions: Tensor, images: Tensor, depth: int) -> dict[str, float]:
    metrics = {
        **retrieval_figures(ranks.t2i.final, ranks.i2t.final),
        **{f"chance_t2i_r{k}": chance_recall(captions, images, k) for k in (1, 5, 10)},
        **{f"chance_i2t_r{k}": chance_recall(images, captions, k) for k in (1, 5, 10)},
    }
    if depth:
        metrics["t2i_ceiling"] = recall_at(ranks.t2i.first, depth)
        metrics["i2t_ceiling"] = recall_at(ranks.i2t.first, depth)
    return metrics


def hits_of(t2i: Tensor, i2t: Tensor, split: FeatureSplit) -> dict[str, Samples]:
    """The hits behind the six recalls, from ranks [Q] in both directions."""
    return _hits("t2i", t2i, split.groups[split.caption_image]) | _hits("i2t", i2t, split.groups)


def _hits(direction: str, ranks: Tensor, groups: Tensor) -> dict[str, Samples]:
    ranks, groups = ranks.cpu(), groups.cpu()
    return {f"{direction}_r{k}": Samples((ranks <= k).double().numpy(), groups.numpy()) for k in (1, 5, 10)}


def retrieval_figures(t2i: Tensor, i2t: Tensor) -> dict[str, float]:
    """The six recalls, their mean and the median ranks, from ranks [Q] in both directions."""
    values = [recall_at(ranks, k) for ranks in (t2i, i2t) for k in (1, 5, 10)]
    return {
        **dict(zip(RETRIEVAL_KEYS, values, strict=True)),
        "recall_mean": sum(values) / len(values),
        "t2i_median_rank": median_rank(t2i),
        "i2t_median_rank": median_rank(i2t),
    }
