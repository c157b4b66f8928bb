"""Random features in the shape of a data set, for timing: the cost of training does not depend on their values."""

from dataclasses import dataclass

import torch

from core.features.store import Features, FeatureSplit, Statistics


@dataclass(frozen=True, slots=True)
class SplitShape:
    """Sizes of one split."""

    images: int
    groups: int
    captions: int
    texts: int
    """Distinct captions and sentences together."""
    regions: int


def stand_in_features(train: SplitShape, validation: SplitShape, *, vision_dim: int, text_dim: int) -> Features:
    """Features of these shapes from a fixed seed; nothing can be learned from them."""
    generator = torch.Generator().manual_seed(0)
    statistics = Statistics(
        torch.zeros(vision_dim), torch.ones(vision_dim), torch.zeros(text_dim), torch.ones(text_dim)
    )
    splits = [_split(shape, vision_dim, text_dim, generator) for shape in (train, validation)]
    return Features("stand-in", splits[0], splits[1], statistics)


def _split(shape: SplitShape, vision_dim: int, text_dim: int, generator: torch.Generator) -> FeatureSplit:
    corners = torch.rand(shape.regions, 4, generator=generator) / 2
    corners[:, 2:] += corners[:, :2]
    return FeatureSplit(
        images=torch.randn(shape.images, vision_dim, generator=generator),
        groups=torch.arange(shape.images) % shape.groups,
        texts=torch.randn(shape.texts, text_dim, generator=generator),
        caption_text=torch.arange(shape.captions) % shape.texts,
        caption_image=torch.arange(shape.captions) % shape.images,
        sentence_text=torch.arange(shape.regions) % shape.texts,
        sentence_image=torch.arange(shape.regions) % shape.images,
        boxes=corners,
        relations=torch.arange(shape.regions) % 6,
    )
