"""Batches of an epoch: shuffled pairs, and dealt out beside them shuffled regions. No Python per sample."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from core.config import Positives
from core.features.store import FeatureSplit, gather


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of an image and its caption, and below them regions: an image and its sentence, box and relation.

    Both lie in the same two tables, since all go through the same adapters: one pass for everything.
    """

    images: Tensor
    """[B + R, vision_dim]"""
    texts: Tensor
    """[B + R, text_dim]"""
    keys: Tensor
    """[B] int64; pairs with equal keys match each other"""
    boxes: Tensor
    """[R, 4]"""
    relations: Tensor
    """[R] int64, -1 where there is none"""

    @property
    def pairs(self) -> int:
        return len(self.keys)

    @property
    def regions(self) -> int:
        return len(self.boxes)

    def clone(self) -> "Batch":
        """The same in memory of its own."""
        return Batch(*(getattr(self, field.name).clone() for field in fields(self)))

    def copy_(self, other: "Batch") -> None:
        """Take over another batch of the same size, in the memory held already."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def steps_per_epoch(split: FeatureSplit, batch_size: int) -> int:
    """Whole batches in the captions; a split smaller than one batch makes one step."""
    return max(1, len(split.caption_text) // batch_size)


def epoch_batches(
    split: FeatureSplit, *, batch_size: int, positives: Positives, with_regions: bool, generator: torch.Generator
) -> Iterator[Batch]:
    """An epoch in random order.

    Every caption at most once: the remainder under one batch is left to the next epoch's draw. Every region exactly
    once, the numbers of two steps differing by at most one.
    """
    steps, device = steps_per_epoch(split, batch_size), split.groups.device
    pairs = torch.randperm(len(split.caption_text), generator=generator)[: steps * batch_size]
    regions = torch.randperm(len(split.boxes) if with_regions else 0, generator=generator)
    rows_of_steps = (rows.to(device).tensor_split(steps) for rows in (pairs, regions))  # a GPU waits but once
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
