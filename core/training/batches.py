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
    dealt = (rows.to(device).tensor_split(steps) for rows in (pairs, regions))  # a GPU waits but once
    for of_pairs, of_regions in zip(*dealt, strict=True):
        shown = gather(split.caption_image, of_pairs)
        pictures = torch.cat([shown, gather(split.sentence_image, of_regions)])
        texts = torch.cat([gather(split.caption_text, of_pairs), gather(split.sentence_text, of_regions)])
        yield Batch(
            images=gather(split.images, pictures),
            texts=gather(split.texts, texts),
            keys=shown if positives == "image" else gather(split.groups, shown),
            boxes=gather(split.boxes, of_regions),
            relations=gather(split.relations, of_regions),
        )
