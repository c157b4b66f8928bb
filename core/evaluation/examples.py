"""A few queries with the images found for them, and a few regions with what the model says of them, to be looked at.

Chosen to represent the split, not to flatter: right and wrong queries in equal numbers, regions from the best to the
worst box.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.annotations import NO_RELATION, AnnotatedImage
from core.data.geometry import RELATIONS, Box, paired_iou
from core.evaluation.embedding import EmbeddedSplit
from core.evaluation.ranking import ranks_by_similarity
from core.evaluation.regions import predict_regions
from core.evaluation.retrieval import both_directions, relevance_of
from core.model.model import CrossModalModel


@dataclass(frozen=True, slots=True)
class RankedImage:
    """An image that was found for a caption."""

    image: AnnotatedImage
    is_right: bool
    """Whether it shows the caption's building."""
    similarity: float


@dataclass(frozen=True, slots=True)
class RetrievalExample:
    """A caption, and the most similar images."""

    caption: str
    image: AnnotatedImage
    """That it was written for."""
    rank: int
    """Of the first right image."""
    best: Sequence[RankedImage]


@dataclass(frozen=True, slots=True)
class RegionExample:
    """A region, and what a model predicts from its image and its sentence."""

    image: AnnotatedImage
    sentence: str
    box: Box
    predicted_box: Box
    iou: float
    relation: str | None
    """To the first region of the image; None for that region itself."""
    predicted_relation: str | None


def retrieval_examples(
    embedded: EmbeddedSplit, images: Sequence[AnnotatedImage], *, each: int = 4, best: int = 5
) -> list[RetrievalExample]:
    """Captions whose most similar image is right, and as many for which it is wrong; by similarity alone.

    Args:
        images: annotated images of the split.
        each: number of captions of each kind, if there are so many.
        best: number of images shown for each.
    """
    search, _ = both_directions(embedded)
    relevance = relevance_of(embedded.split, "building", search)
    ranks = ranks_by_similarity(search, relevance)
    chosen = torch.cat([_spread(rows.nonzero().flatten(), each) for rows in (ranks == 1, ranks > 1)])
    similarities, found = (search.queries[chosen] @ search.gallery.T).topk(min(best, len(images)), dim=1)
    right = relevance.queries[chosen][:, None] == relevance.gallery[found]
    captions = [caption for image in images for caption in image.captions]
    return [
        RetrievalExample(
            caption=captions[row],
            image=images[int(embedded.split.caption_image[row])],
            rank=int(ranks[row]),
            best=[
                RankedImage(images[number], is_right, similarity)
                for number, is_right, similarity in zip(
                    found[place].tolist(), right[place].tolist(), similarities[place].tolist(), strict=True
                )
            ],
        )
        for place, row in enumerate(chosen.tolist())
    ]


def region_examples(
    model: CrossModalModel, embedded: EmbeddedSplit, images: Sequence[AnnotatedImage], *, count: int = 8
) -> list[RegionExample]:
    """Regions at equal distances in the order of their IoU, from the best box to the worst; none without regions.

    Args:
        images: annotated images of the split.
    Raises:
        DivergedError: an output of the model is not finite.
    """
    split = embedded.split
    if len(split.boxes) == 0:
        return []
    boxes, logits = predict_regions(model, embedded, split.sentence_image)
    iou = paired_iou(boxes, split.boxes)
    sentences = [region.sentence for image in images for region in image.regions]
    return [
        RegionExample(
            image=images[int(split.sentence_image[row])],
            sentence=sentences[row],
            box=_box(split.boxes[row]),
            predicted_box=_box(boxes[row]),
            iou=float(iou[row]),
            relation=_relation(int(split.relations[row])),
            predicted_relation=None if split.relations[row] == NO_RELATION else RELATIONS[int(logits[row].argmax())],
        )
        for row in _spread(iou.argsort(descending=True, stable=True), count).tolist()
    ]


def _spread(rows: Tensor, count: int) -> Tensor:
    """So many of the rows, at equal distances."""
    count = min(count, len(rows))
    return rows[torch.linspace(0, len(rows) - 1, count, device=rows.device).round().long()] if count else rows


def _box(corners: Tensor) -> Box:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2


def _relation(index: int) -> str | None:
    return None if index == NO_RELATION else RELATIONS[index]
