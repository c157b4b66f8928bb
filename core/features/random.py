"""Random features in the shape of a data set, for timing: the cost of training does not depend on their values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.features.store import Features, FeatureSplit, Statistics, Widths


@dataclass(frozen=True, slots=True)
class SplitShape:
    """Sizes of one split."""

    images: int
    groups: int
    captions: int
    texts: int
    """Distinct captions and sentences together."""
    regions: int


def random_features(train: SplitShape, validation: SplitShape, widths: Widths) -> Features:
    """Features of these shapes from a fixed seed; nothing can be learned from them."""
    generator = torch.Generator().manual_seed(0)
    statistics = Statistics(
        torch.zeros(widths.images),
        torch.ones(widths.images),
        torch.zeros(widths.texts),
        torch.ones(widths.texts),
        torch.zeros(widths.grid[1]) if widths.grid else None,
        torch.ones(widths.grid[1]) if widths.grid else None,
    )
    splits = [_split(shape, widths, generator) for shape in (train, validation)]
    return Features("random", splits[0], splits[1], statistics)


def _split(shape: SplitShape, widths: Widths, generator: torch.Generator) -> FeatureSplit:
    corners = torch.rand(shape.regions, 4, generator=generator) / 2
    corners[:, 2:] += corners[:, :2]
    region_images = (torch.arange(shape.regions) % shape.images).sort().values
    return FeatureSplit(
        images=torch.randn(shape.images, widths.images, generator=generator),
        groups=torch.arange(shape.images) % shape.groups,
        texts=torch.randn(shape.texts, widths.texts, generator=generator),
        caption_text=torch.arange(shape.captions) % shape.texts,
        caption_image=torch.arange(shape.captions) % shape.images,
        sentence_text=torch.arange(shape.regions) % shape.texts,
        sentence_image=region_images,
        boxes=corners,
        relations=torch.arange(shape.regions) % 6,
        first_region=torch.searchsorted(region_images, region_images),
        grid=_grid(shape.images, *widths.grid, generator) if widths.grid else None,
    )


def _grid(images: int, cells: int, width: int, generator: torch.Generator) -> Tensor:
    """One grid for all images: those of a large data set do not fit the memory."""
    return torch.randn(1, cells, width, generator=generator).half().expand(images, cells, width)
