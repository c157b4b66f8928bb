"""Examples of what a model does: text queries that it answers right and wrong, and regions with boxes and relations.

They are drawn at random with a fixed seed, at most one of each building, so that nobody picked them. Plain data, which
`analysis` draws without torch.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from core.data.annotations import NO_RELATION, AnnotatedImage
from core.data.geometry import RELATIONS
from core.data.overlap import paired_iou
from core.errors import UserError
from core.evaluation.embedding import EmbeddedSplit, embed_split
from core.evaluation.ranking import Search, ranks_by_similarity
from core.evaluation.regions import predict_regions
from core.evaluation.retrieval import both_directions, relevance_of
from core.features.inputs import read_inputs
from core.features.store import FeatureSplit, FeatureStore
from core.model.checkpoints import load_checkpoint, require_same_features, restore_model
from core.model.model import CrossModalModel
from core.records import Corners, Examples, FoundImage, QueryExample, RegionExample

QUERIES, REGIONS = 3, 6
"""Right queries, and as many wrong ones; regions."""
FOUND = 10
"""Images shown of each query."""
SEED = 0


def load_examples(path: Path) -> Examples:
    """Examples of a checkpoint on its validation split, on the CPU; no feature is extracted for them.

    Raises:
        UserError: the checkpoint, the features that it was trained on, or their images and annotations are not there;
            the data has no pictures.
        DivergedError: an output of the model is not finite.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    if config.data.image_root is None:
        raise UserError("the data has no pictures (data.image_root is null)", where=path)
    if not FeatureStore.exists(config.features.store, checkpoint.fingerprint, config.readings.all):
        raise UserError(f"does not hold the features {checkpoint.fingerprint}", where=config.features.store)
    inputs = read_inputs(config)
    require_same_features(checkpoint, inputs.parts.fingerprint, path)
    store = FeatureStore.open(config.features.store, checkpoint.fingerprint)
    features = store.features(config.readings, allow_degenerate=config.features.allow_degenerate)
    return examples_of(restore_model(checkpoint), features.validation, inputs.images["validation"])


def examples_of(model: CrossModalModel, split: FeatureSplit, images: Sequence[AnnotatedImage]) -> Examples:
    """Examples of a model on a split.

    Args:
        images: annotated images of the split, in its order.
    Raises:
        DivergedError: an output of the model is not finite.
    """
    embedded = embed_split(model, split)
    search, _ = both_directions(embedded)
    relevance = relevance_of(split, "building", search)
    ranks = ranks_by_similarity(search, relevance)
    right, wrong = (
        [_query(search, split, images, row, int(ranks[row])) for row in _drawn(which, relevance.queries, QUERIES)]
        for which in (ranks == 1, ranks > 1)
    )
    return Examples(
        right=right,
        wrong=wrong,
        right_queries=int((ranks == 1).sum()),
        queries=len(ranks),
        images=len(images),
        regions=_regions(model, embedded, images),
        alone=len(torch.unique(split.groups)) == len(images),
    )


def _drawn(which: Tensor, groups: Tensor, count: int) -> list[int]:
    """Rows where `which` is true, at random, of as many different groups."""
    rows = which.nonzero().flatten()
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))].tolist()
    one_of_each: dict[int, int] = {}
    for row in shuffled:
        one_of_each.setdefault(int(groups[row]), row)
    return list(one_of_each.values())[:count]


def _query(search: Search, split: FeatureSplit, images: Sequence[AnnotatedImage], row: int, rank: int) -> QueryExample:
    captions = [caption for image in images for caption in image.captions]
    own = int(split.caption_image[row])
    similarity = search.gallery @ search.queries[row]  # [G]
    best = similarity.topk(min(FOUND, len(images))).indices.tolist()
    found = [
        FoundImage(images[each].path, float(similarity[each]), bool(split.groups[each] == split.groups[own]))
        for each in best
    ]
    return QueryExample(captions[row], images[own].path, rank, found)


def _regions(model: CrossModalModel, embedded: EmbeddedSplit, images: Sequence[AnnotatedImage]) -> list[RegionExample]:
    """Regions with a relation, or any where the data has none."""
    split = embedded.split
    if len(split.boxes) == 0:
        return []
    boxes, logits = predict_regions(model, embedded, split.sentence_image)
    iou, relations = paired_iou(boxes, split.boxes), logits.argmax(dim=1)
    sentences = [region.sentence for image in images for region in image.regions]
    related = split.relations != NO_RELATION
    which = related if related.any() else torch.ones_like(related)
    examples = []
    for row in _drawn(which, split.groups[split.sentence_image], REGIONS):
        first, relation = int(split.first_region[row]), int(split.relations[row])
        examples.append(
            RegionExample(
                image=images[int(split.sentence_image[row])].path,
                sentence=sentences[row],
                box=_corners(split.boxes[row]),
                predicted_box=_corners(boxes[row]),
                iou=float(iou[row]),
                relation=None if relation == NO_RELATION else RELATIONS[relation],
                predicted_relation=RELATIONS[int(relations[row])],
                reference_sentence=sentences[first],
                reference_box=_corners(split.boxes[first]),
            )
        )
    return examples


def _corners(box: Tensor) -> Corners:
    x1, y1, x2, y2 = map(float, box.clamp(0, 1))
    return x1, y1, x2, y2
