"""Batches of an epoch: shuffled pairs, with the shuffled regions spread evenly over them. No Python per sample."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from core.config import TrainConfig
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
    caption_keys: Tensor | None = None
    """[B] int64; pairs with equal ones also match each other; None if captions do not matter"""
    grid: Tensor | None = None
    """[B + R, P, grid_dim] as stored; None for a model that does not use it"""
    references: Tensor | None = None
    """[R, text_dim], sentences of the regions that the relations refer to; None for heads without attention"""

    @property
    def pairs(self) -> int:
        """B"""
        return len(self.keys)

    @property
    def regions(self) -> int:
        """R"""
        return len(self.boxes)

    def same(self) -> Tensor:
        """Which pairs match each other: [B, B] bool, symmetric."""
        same = self.keys[:, None] == self.keys
        return same if self.caption_keys is None else same | (self.caption_keys[:, None] == self.caption_keys)

    def clone(self) -> "Batch":
        """A copy in separate memory."""
        return Batch(**{name: tensor.clone() for name, tensor in self._tensors().items()})

    def copy_(self, other: "Batch") -> None:
        """Copy another batch of the same size into the memory of this one."""
        for name, tensor in self._tensors().items():
            tensor.copy_(getattr(other, name))

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def steps_per_epoch(split: FeatureSplit, batch_size: int) -> int:
    """Number of full batches of captions in an epoch; 1 for a split smaller than a batch."""
    return max(1, len(split.caption_text) // batch_size)


def epoch_batches(
    split: FeatureSplit, config: TrainConfig, *, with_regions: bool, generator: torch.Generator
) -> Iterator[Batch]:
    """The batches of an epoch, in random order.

    Each caption occurs at most once, since an incomplete last batch is dropped; each region occurs exactly once. The
    number of regions differs by at most one between batches.

    Args:
        config: sets the pairs per batch, which of them match each other, and whether batches contain grids.
        with_regions: False gives batches without regions.
        generator: on the CPU; determines the order.
    """
    batch_size = config.optimizer.batch_size
    steps, device = steps_per_epoch(split, batch_size), split.groups.device
    pairs = torch.randperm(len(split.caption_text), generator=generator)[: steps * batch_size]
    regions = torch.randperm(len(split.boxes) if with_regions else 0, generator=generator)
    rows_of_steps = (rows.to(device).tensor_split(steps) for rows in (pairs, regions))  # one transfer per epoch
    for pair_rows, region_rows in zip(*rows_of_steps, strict=True):
        yield _batch(split, config, pair_rows, region_rows)


def _batch(split: FeatureSplit, config: TrainConfig, pair_rows: Tensor, region_rows: Tensor) -> Batch:
    """The batch of captions [B] and regions [R], given as rows of the split."""
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
    """Text features of the first regions of the same images: [R, text_dim]."""
    return gather(split.texts, gather(split.sentence_text, gather(split.first_region, region_rows)))
