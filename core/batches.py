"""Batches of an epoch: shuffled pairs, and beside them shuffled regions. Two gathers a batch, no Python per sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.config import Positives
from core.features import FeatureSplit


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Matching images and captions."""

    images: Tensor
    """[B, vision_dim]"""
    captions: Tensor
    """[B, text_dim]"""
    keys: Tensor
    """[B] int64; rows with equal keys match each other"""


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """Regions: a sentence, its image, its box, its relation. May be empty."""

    images: Tensor
    """[R, vision_dim]"""
    sentences: Tensor
    """[R, text_dim]"""
    boxes: Tensor
    """[R, 4]"""
    relations: Tensor
    """[R] int64, -1 where there is none"""


def steps_per_epoch(split: FeatureSplit, batch_size: int) -> int:
    """Whole batches in the captions; a split smaller than one batch makes one step."""
    return max(1, len(split.caption_text) // batch_size)


def pair_batches(
    split: FeatureSplit, *, batch_size: int, positives: Positives, generator: torch.Generator
) -> Iterator[PairBatch]:
    """Every caption at most once, in random order; the remainder under one batch is left to the next epoch's draw."""
    order = torch.randperm(len(split.caption_text), generator=generator).to(split.groups.device)  # a GPU waits but once
    for step in range(steps_per_epoch(split, batch_size)):
        rows = order[step * batch_size : (step + 1) * batch_size]
        images = split.caption_image[rows]
        keys = images if positives == "image" else split.groups[images]
        yield PairBatch(split.images[images], split.texts[split.caption_text[rows]], keys)


def region_batches(split: FeatureSplit, *, steps: int, generator: torch.Generator) -> Iterator[RegionBatch]:
    """The regions in random order, dealt out evenly over the steps of an epoch."""
    order = torch.randperm(len(split.boxes), generator=generator).to(split.groups.device)
    size = -(-len(order) // steps)
    for step in range(steps):
        rows = order[step * size : (step + 1) * size]
        yield RegionBatch(
            split.images[split.sentence_image[rows]],
            split.texts[split.sentence_text[rows]],
            split.boxes[rows],
            split.relations[rows],
        )
