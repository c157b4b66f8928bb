"""Splitting annotated images into training, validation and test, by building."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Literal

from core.data.annotations import AnnotatedImage
from core.errors import UserError

Split = Literal["train", "validation", "test"]


def split_by_group(
    images: Sequence[AnnotatedImage], fractions: Mapping[Split, float], seed: int
) -> dict[Split, list[AnnotatedImage]]:
    """Assign groups to splits, so that no building is in two of them; images keep their order.

    Args:
        fractions: share of the groups per split; they add up to 1, and each split gets at least one group.
    Raises:
        UserError: there are fewer groups than splits.
        ValueError: the fractions do not add up to 1.
    """
    if not math.isclose(sum(fractions.values()), 1.0):
        raise ValueError("fractions must add up to 1")
    groups = sorted({image.group for image in images})
    if len(groups) < len(fractions):
        raise UserError(
            f"{len(groups)} buildings cannot be split into {' and '.join(fractions)}",
            where="data",
            how="the first part of an image_id, up to its /, names the building",
        )
    random.Random(seed).shuffle(groups)
    split_of: dict[str, Split] = {}
    start, share = 0, 0.0
    for left, (split, fraction) in zip(reversed(range(len(fractions))), fractions.items(), strict=True):
        share += fraction
        stop = min(max(round(share * len(groups)), start + 1), len(groups) - left)
        split_of |= dict.fromkeys(groups[start:stop], split)
        start = stop
    return {split: [image for image in images if split_of[image.group] == split] for split in fractions}
