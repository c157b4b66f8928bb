"""Features computed in the training loop instead of read from a store, for setups that must not store them.

Slower by orders of magnitude and equal to float tolerance; everything downstream is the same code.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.backbone.internvl import FrozenBackbone
from core.config import TrainConfig
from core.features.extraction import SplitIndex, encode_image_files, group_numbers, index_splits, index_tensors
from core.features.inputs import FeatureInputs
from core.features.store import Features, FeatureSplit, Statistics, Table
from core.features.tables import mean_and_deviation
from core.readings import Reading, Readings


class LiveTable:
    """A table whose rows are encoded when they are read; a row requested twice in one read is encoded once."""

    def __init__(self, items: Sequence[Any], shape: Sequence[int], encode: Callable[[Sequence[Any]], Tensor]) -> None:
        self._items = items
        self._encode = encode
        self.shape = (len(items), *shape)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        if len(rows) == 0:
            return torch.zeros(0, *self.shape[1:], device=rows.device)
        distinct, position = torch.unique(rows.cpu(), return_inverse=True)
        encoded = self._encode([self._items[row] for row in distinct.tolist()])
        return encoded[position.to(encoded.device)]

    def to(self, device: torch.device, /) -> "LiveTable":
        """The backbone's device decides; there is nothing to move."""
        return self


def live_features(
    inputs: FeatureInputs, backbone: FrozenBackbone, config: TrainConfig, *, with_test: bool = False
) -> Features:
    """Features that the backbone computes on every read.

    Standardisation needs one pass over the training split for its statistics; the other normalisations need none.

    Args:
        with_test: include the test split, if there is one.
    Raises:
        UserError: the backbone cannot give one of the readings.
    """
    backbone.require(config.readings.all)
    indices = index_splits(inputs.images)
    groups = group_numbers(indices)
    splits = {
        split: _live_split(index, groups, backbone, config.readings)
        for split, index in indices.items()
        if split != "test" or with_test
    }
    train = splits["train"]
    tables = [train.images, train.texts, *([] if train.grid is None else [train.grid])]
    measure = mean_and_deviation if config.features.normalization == "standardize" else _not_needed
    return Features(
        fingerprint=inputs.parts.fingerprint,
        train=train,
        validation=splits["validation"],
        statistics=Statistics(*(figure.float() for table in tables for figure in measure(table))),
        test=splits.get("test"),
        backbone_parameters=backbone.parameter_count,
        backbone=inputs.parts.backbone,
    )


def _live_split(
    index: SplitIndex, groups: Mapping[str, int], backbone: FrozenBackbone, readings: Readings
) -> FeatureSplit:
    paths = [image.path for image in index.images]

    def images(files: Sequence[Path]) -> Tensor:
        encoded, _ = encode_image_files(backbone, files, readings.images)
        return torch.cat([encoded[reading] for reading in readings.images], dim=1)

    def texts(rows: Sequence[str]) -> Tensor:
        encoded = backbone.encode_texts(rows, readings.texts)
        return torch.cat([encoded[reading] for reading in readings.texts], dim=1)

    widths = [sum(map(backbone.width, side)) for side in (readings.images, readings.texts)]
    return FeatureSplit(
        images=LiveTable(paths, [widths[0]], images),
        texts=LiveTable(index.texts, [widths[1]], texts),
        grid=_live_grid(paths, backbone, readings.grid) if readings.grid else None,
        **index_tensors(index, groups),
    )


def _live_grid(paths: Sequence[Path], backbone: FrozenBackbone, grid: Reading) -> LiveTable:
    side = grid.side or 0
    return LiveTable(
        paths, [side * side, backbone.width(grid)], lambda files: encode_image_files(backbone, files, [grid])[0][grid]
    )


def _not_needed(table: Table) -> tuple[Tensor, Tensor]:
    return torch.zeros(table.shape[-1]), torch.ones(table.shape[-1])
