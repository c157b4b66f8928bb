"""Splitting annotated images into training, validation and test, by building."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Literal

from core.data.annotations import ImageRecord
from core.errors import UserError

Split = Literal["train", "validation", "test"]


def split_by_group(
    records: Sequence[ImageRecord], fractions: Mapping[Split, float], seed: int
) -> dict[Split, list[ImageRecord]]:
    """Deal whole groups out to splits, so that no building straddles two of them; record order is kept.

    Args:
        fractions: share of the groups for each split; they add up to 1, and each split gets at least one group.
    Raises:
        UserError: there are fewer groups than splits.
    """
    if not math.isclose(sum(fractions.values()), 1.0):
        raise ValueError("fractions must add up to 1")
    groups = sorted({record.group for record in records})
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
    return {split: [record for record in records if split_of[record.group] == split] for split in fractions}
