"""Batches of an epoch: shuffled pairs, with the shuffled regions spread evenly over them. No Python per sample."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from core.config import Positives
from core.features.store import FeatureSplit, gather


@dataclass(frozen=True, slots=True)
class Batch:
    """B pairs of an image and a caption, followed by R regions: image, sentence, box and relation.

    Both are in the same two tables, so that one pass of the adapters embeds them all.
    """

    images: Tensor
    """[B + R, vision_dim]"""
    texts: Tensor
    """[B + R, text_dim]"""
    keys: Tensor
    """[B] int64; pairs with equal keys match each other"""
    boxes: Tensor
    """[R, 4] x1 y1 x2 y2 in 0..1"""
    relations: Tensor
    """[R] int64 in 0..5, -1 if there is none"""

    @property
    def pairs(self) -> int:
        """B"""
        return len(self.keys)

    @property
    def regions(self) -> int:
        """R"""
        return len(self.boxes)

    def clone(self) -> "Batch":
        """A copy in separate memory."""
        return Batch(*(getattr(self, field.name).clone() for field in fields(self)))

    def copy_(self, other: "Batch") -> None:
        """Copy another batch of the same size into the memory of this one."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def steps_per_epoch(split: FeatureSplit, batch_size: int) -> int:
    """Number of full batches of captions in an epoch; 1 for a split smaller than a batch."""
    return max(1, len(split.caption_text) // batch_size)


def epoch_batches(
    split: FeatureSplit, *, batch_size: int, positives: Positives, with_regions: bool, generator: torch.Generator
) -> Iterator[Batch]:
    """The batches of an epoch, in random order.

    Each caption occurs at most once, since an incomplete last batch is dropped; each region occurs exactly once. The
    number of regions differs by at most one between batches.

    Args:
        batch_size: pairs per batch.
        positives: whether pairs of the same image or of the same building match each other.
        with_regions: False gives batches without regions.
        generator: on the CPU; determines the order.
    """
    steps, device = steps_per_epoch(split, batch_size), split.groups.device
    pairs = torch.randperm(len(split.caption_text), generator=generator)[: steps * batch_size]
    regions = torch.randperm(len(split.boxes) if with_regions else 0, generator=generator)
    rows_of_steps = (rows.to(device).tensor_split(steps) for rows in (pairs, regions))  # one transfer per epoch
    for pair_rows, region_rows in zip(*rows_of_steps, strict=True):
        caption_images = gather(split.caption_image, pair_rows)
        image_rows = torch.cat([caption_images, gather(split.sentence_image, region_rows)])
        text_rows = torch.cat([gather(split.caption_text, pair_rows), gather(split.sentence_text, region_rows)])
        yield Batch(
            images=gather(split.images, image_rows),
            texts=gather(split.texts, text_rows),
            keys=caption_images if positives == "image" else gather(split.groups, caption_images),
            boxes=gather(split.boxes, region_rows),
            relations=gather(split.relations, region_rows),
        )
