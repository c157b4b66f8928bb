"""Features computed in the training loop instead of read from a store, for setups that must not store them.

Slower by orders of magnitude and equal to float tolerance; everything downstream is the same code.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.backbone.internvl import FrozenBackbone
from core.config import FeaturesConfig
from core.data.splits import Split
from core.features.extraction import encode_image_files, group_numbers, index_splits, index_tensors
from core.features.inputs import FeatureInputs
from core.features.store import Features, FeatureSplit, Statistics, Table

ROWS_AT_ONCE = 1024


class LiveTable:
    """A table whose rows are encoded when they are read; a row requested twice in one read is encoded once."""

    def __init__(self, items: Sequence[Any], width: int, encode: Callable[[Sequence[Any]], Tensor]) -> None:
        self._items = items
        self._encode = encode
        self.shape = (len(items), width)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        if len(rows) == 0:
            return torch.zeros(0, self.shape[1], device=rows.device)
        distinct, position = torch.unique(rows.cpu(), return_inverse=True)
        encoded = self._encode([self._items[row] for row in distinct.tolist()])
        return encoded[position.to(encoded.device)]

    def to(self, device: torch.device, /) -> "LiveTable":
        """The backbone's device decides; there is nothing to move."""
        return self


def live_features(
    inputs: FeatureInputs, backbone: FrozenBackbone, config: FeaturesConfig, *, with_test: bool = False
) -> Features:
    """Features that the backbone computes on every read.

    Standardisation needs one pass over the training split for its statistics; the other normalisations need none.

    Args:
        with_test: include the test split, if there is one.
    Raises:
        UserError: an image cannot be read; also on later reads.
    """

    def images(paths: Sequence[Path]) -> Tensor:
        return encode_image_files(backbone, paths)[0][config.image_pooling]

    def texts(rows: Sequence[str]) -> Tensor:
        return backbone.encode_texts(rows)[config.text_pooling]

    indices = index_splits(inputs.images)
    groups = group_numbers(indices)
    splits: dict[Split, FeatureSplit] = {
        split: FeatureSplit(
            images=LiveTable([image.path for image in index.images], backbone.vision_dim, images),
            texts=LiveTable(index.texts, backbone.text_dim, texts),
            **index_tensors(index, groups),
        )
        for split, index in indices.items()
        if split != "test" or with_test
    }
    train = splits["train"]
    measure = _mean_and_deviation if config.normalization == "standardize" else _not_needed
    image_mean, image_std = measure(train.images)
    text_mean, text_std = measure(train.texts)
    return Features(
        fingerprint=inputs.parts.fingerprint,
        train=train,
        validation=splits["validation"],
        statistics=Statistics(image_mean, image_std, text_mean, text_std),
        test=splits.get("test"),
        backbone_parameters=backbone.parameter_count,
    )


def _mean_and_deviation(table: Table) -> tuple[Tensor, Tensor]:
    total = torch.zeros(table.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for start in range(0, len(table), ROWS_AT_ONCE):
        rows = table[start : start + ROWS_AT_ONCE].double().cpu()
        total += rows.sum(dim=0)
        squares += rows.square().sum(dim=0)
    mean = total / len(table)
    return mean.float(), (squares / len(table) - mean.square()).clamp(min=0).sqrt().float()


def _not_needed(table: Table) -> tuple[Tensor, Tensor]:
    return torch.zeros(table.shape[1]), torch.ones(table.shape[1])
