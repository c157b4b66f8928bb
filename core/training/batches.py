"""Batches of an epoch: shuffled pairs, and dealt out beside them shuffled regions. No Python per sample."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from core.config import TrainConfig
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
    caption_keys: Tensor | None = None
    """[B] int64; pairs with equal ones match each other, too; None where captions do not decide"""
    grid: Tensor | None = None
    """[B + R, P, grid_dim] as the store holds it; None where the model does not look at it"""
    references: Tensor | None = None
    """[R, text_dim], sentences of the regions that relations refer to; None where the heads do without"""

    @property
    def pairs(self) -> int:
        return len(self.keys)

    @property
    def regions(self) -> int:
        return len(self.boxes)

    def same(self) -> Tensor:
        """Which pairs match each other: [B, B] bool, symmetric."""
        same = self.keys[:, None] == self.keys
        return same if self.caption_keys is None else same | (self.caption_keys[:, None] == self.caption_keys)

    def clone(self) -> "Batch":
        """The same in memory of its own."""
        return Batch(**{name: part.clone() for name, part in self._parts()})

    def copy_(self, other: "Batch") -> None:
        """Take over another batch of the same size, in the memory held already."""
        for (_, part), (_, new) in zip(self._parts(), other._parts(), strict=True):
            part.copy_(new)

    def _parts(self) -> Iterator[tuple[str, Tensor]]:
        parts = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, part) for name, part in parts if part is not None)


def steps_per_epoch(split: FeatureSplit, batch_size: int) -> int:
    """Whole batches in the captions; a split smaller than one batch makes one step."""
    return max(1, len(split.caption_text) // batch_size)


def epoch_batches(
    split: FeatureSplit, config: TrainConfig, *, with_regions: bool, generator: torch.Generator
) -> Iterator[Batch]:
    """An epoch in random order.

    Every caption at most once: the remainder under one batch is left to the next epoch's draw. Every region exactly
    once, the numbers of two steps differing by at most one.
    """
    batch_size = config.optimizer.batch_size
    steps, device = steps_per_epoch(split, batch_size), split.groups.device
    pairs = torch.randperm(len(split.caption_text), generator=generator)[: steps * batch_size]
    regions = torch.randperm(len(split.boxes) if with_regions else 0, generator=generator)
    rows_of_steps = (rows.to(device).tensor_split(steps) for rows in (pairs, regions))  # a GPU waits but once
    for pair_rows, region_rows in zip(*rows_of_steps, strict=True):
        yield _batch(split, config, pair_rows, region_rows)


def _batch(split: FeatureSplit, config: TrainConfig, pair_rows: Tensor, region_rows: Tensor) -> Batch:
    """The captions and regions at these rows."""
    caption_images, caption_texts = gather(split.caption_image, pair_rows), gather(split.caption_text, pair_rows)
    image_rows = torch.cat([caption_images, gather(split.sentence_image, region_rows)])
    text_rows = torch.cat([caption_texts, gather(split.sentence_text, region_rows)])
    positives, model, grid = config.loss.positives, config.model, split.grid
    return Batch(
        images=gather(split.images, image_rows),
        texts=gather(split.texts, text_rows),
        keys=gather(split.groups, caption_images) if positives == "building" else caption_images,
        boxes=gather(split.boxes, region_rows),
        relations=gather(split.relations, region_rows),
        caption_keys=caption_texts if positives == "text" else None,
        grid=gather(grid, image_rows) if model.uses_grid and grid is not None else None,
        references=_references(split, region_rows) if model.fusion == "attention" else None,
    )


def _references(split: FeatureSplit, region_rows: Tensor) -> Tensor:
    """Sentences of the first regions of the same images."""
    return gather(split.texts, gather(split.sentence_text, gather(split.first_region, region_rows)))
