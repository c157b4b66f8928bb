"""Retrieval metrics of a model on a split: a quick validation after each epoch, and the full evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from core.evaluation.embedding import EmbeddedSplit, captions_once, embed_split
from core.evaluation.metrics import (
    chance_recall,
    group_bootstrap,
    median_rank,
    members_by_group,
    official_group_indices,
    recall_at,
)
from core.evaluation.query_bank import normalise
from core.evaluation.ranking import (
    TIES,
    AnyRelevance,
    PairedRelevance,
    RankingRule,
    Relevance,
    Search,
    Ties,
    rank_bounds_by_similarity,
    ranks_by_similarity,
    rerank,
)
from core.evaluation.regions import measure_regions
from core.features.store import FeatureSplit
from core.model.model import CrossModalModel
from core.model.views import TextView
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


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a gallery: all captions, or each distinct one once."""

    view: TextView
    """U of them"""
    of_caption: Tensor | None
    """[M], row of each caption in them; None if they are the captions"""
    image: Tensor
    """[U], row of an image that each stands under"""


def measure_retrieval(
    model: CrossModalModel, embedded: EmbeddedSplit, rule: RankingRule, *, split_name: str, unique_texts: bool = False
) -> dict[Protocol, Measurement]:
    """Recall and median rank in both directions by each protocol, with chance and 95 % intervals over buildings.

    All protocols are measured on the same order of the gallery, which is the costly part.

    Args:
        unique_texts: equal captions are one text, relevant to all images that they stand under; intervals count it to
            the building of one of these.
    """
    split, texts = embedded.split, _texts_once(embedded) if unique_texts else _all_captions(embedded)
    t2i, i2t = both_directions(replace(embedded, captions=texts.view), bank=rule.bank)
    relevant_images, relevant_texts = (
        {protocol: _relevance(split, protocol, search, texts) for protocol in PROTOCOLS} for search in (t2i, i2t)
    )
    text_ranks, image_ranks = _ranks(model, t2i, relevant_images, rule), _ranks(model, i2t, relevant_texts, rule)
    measurements: dict[Protocol, Measurement] = {}
    for protocol in PROTOCOLS:
        ranks, favourable = (_BothRanks(text_ranks[protocol, ties], image_ranks[protocol, ties]) for ties in TIES)
        samples = _hits("t2i", ranks.t2i.final, split.groups[texts.image]) | _hits("i2t", ranks.i2t.final, split.groups)
        figures = retrieval_figures(ranks.t2i.final, ranks.i2t.final)
        chance = _chance(t2i, relevant_images[protocol]) | _chance(i2t, relevant_texts[protocol])
        evaluation = Evaluation(
            split=split_name,
            protocol=protocol,
            rerank=rule.rerank,
            queries_text=len(t2i.queries),
            queries_image=len(i2t.queries),
            groups=len(torch.unique(split.groups)),
            metrics=figures | chance | _ceilings(ranks, rule.rerank),
            intervals={name: group_bootstrap(sample.values, sample.groups) for name, sample in samples.items()},
            rerank_weight=rule.rerank_weight if rule.rerank else None,
            query_bank="none" if rule.bank is None else "train_captions",
            optimistic=_optimistic(favourable, figures),
            unique_texts=unique_texts,
        )
        measurements[protocol] = Measurement(evaluation, samples)
    return measurements


def _all_captions(embedded: EmbeddedSplit) -> _Texts:
    return _Texts(embedded.captions, None, embedded.split.caption_image)


def _texts_once(embedded: EmbeddedSplit) -> _Texts:
    view, of_caption = captions_once(embedded)
    images = embedded.split.caption_image
    first = images.new_full((len(view.embedded),), len(embedded.split.groups))
    return _Texts(view, of_caption, first.scatter_reduce(0, of_caption, images, "amin"))


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


def _relevance(split: FeatureSplit, protocol: Protocol, search: Search, texts: _Texts) -> AnyRelevance:
    """`relevance_of`, where a text may stand under several images."""
    by_caption = relevance_of(split, protocol, search)
    if texts.of_caption is None:
        return by_caption
    keys = by_caption if search.texts_ask else Relevance(by_caption.gallery, by_caption.queries)
    images, exists, groups = members_by_group(keys.queries, keys.gallery)
    pairs = exists[groups]  # [M, most images of a group]
    texts_of_pairs = texts.of_caption[:, None].expand_as(pairs)[pairs]
    images_of_pairs = images[groups][pairs]
    ends = (texts_of_pairs, images_of_pairs) if search.texts_ask else (images_of_pairs, texts_of_pairs)
    return PairedRelevance(*ends)


def _ranks(
    model: CrossModalModel, search: Search, relevances: Mapping[Protocol, AnyRelevance], rule: RankingRule
) -> dict[tuple[Protocol, Ties], _Ranks]:
    counted = {(name, ties): each.counting(ties) for name, each in relevances.items() for ties in TIES}
    firsts = [ranks for each in relevances.values() for ranks in rank_bounds_by_similarity(search, each)]
    finals = rerank(model, search, list(counted.values()), firsts, rule) if rule.rerank else firsts
    return dict(zip(counted, map(_Ranks, firsts, finals), strict=True))


def _chance(search: Search, relevance: AnyRelevance) -> dict[str, float]:
    members, direction = relevance.members(), "t2i" if search.texts_ask else "i2t"
    return {f"chance_{direction}_r{k}": chance_recall(members, len(search.gallery), k) for k in (1, 5, 10)}


def _ceilings(ranks: _BothRanks, depth: int) -> dict[str, float]:
    if not depth:
        return {}
    return {"t2i_ceiling": recall_at(ranks.t2i.first, depth), "i2t_ceiling": recall_at(ranks.i2t.first, depth)}


def _optimistic(ranks: _BothRanks, figures: Mapping[str, float]) -> dict[str, float]:
    """Those recalls that ties change if they count for the query."""
    favourable = retrieval_figures(ranks.t2i.final, ranks.i2t.final)
    return {name: favourable[name] for name in (*RETRIEVAL_KEYS, "recall_mean") if favourable[name] != figures[name]}


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
