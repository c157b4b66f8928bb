"""Reading cached features: one store per fingerprint, memory-mapped, shared by all trials of a node.

Written by `core.features.extraction`; a trial needs only this module. The test split is opened only on request.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from core.data.splits import Split
from core.device import free_memory
from core.errors import UserError
from core.features.fingerprint import reading_fingerprint
from core.features.manifest import MANIFEST, checked_file, read_manifest, reading_folder
from core.readings import Reading, Readings

STATISTICS = "statistics.safetensors"
MIN_DISTINCT = 0.5
"""Minimum share of distinct inputs that must have distinct vectors."""
TABLE_SHARE = 0.5
"""Share of a GPU's free memory that one table may take; the rest is left to other tables and to training."""


class Table(Protocol):
    """Rows of features: a tensor or memory map, or the frozen backbone computing them (`core.features.live`)."""

    @property
    def shape(self) -> Sequence[int]:
        """[N, width]"""

    def __len__(self) -> int:
        """N"""

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """Rows [B] int64, or a slice → [B, width] float32."""

    def to(self, device: torch.device, /) -> "Table":
        """A table whose rows are returned on a device."""


class HostTable:
    """A table that does not fit a GPU: the CPU gathers the rows that are read and copies them to the GPU."""

    def __init__(self, rows: Tensor, device: torch.device) -> None:
        self._rows = rows
        self._device = device
        self.shape = rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        return gather(self._rows, rows if isinstance(rows, slice) else rows.to(self._rows.device)).to(self._device)

    def to(self, device: torch.device, /) -> "Table":
        """Move the rows to a device if they fit its memory."""
        return move_table(self._rows, device)


class JoinedTable:
    """Several tables of the same rows, concatenated where rows are read."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self.shape = (len(tables[0]), sum(table.shape[1] for table in tables))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        return torch.cat([gather(table, rows) for table in self._tables], dim=1)

    def to(self, device: torch.device, /) -> "Table":
        return JoinedTable([move_table(table, device) for table in self._tables])


def join_tables(tables: Sequence[Table]) -> Table:
    """Tables of the same rows side by side; a single one as it is."""
    return tables[0] if len(tables) == 1 else JoinedTable(tables)


def gather(table: Table, rows: Tensor | slice) -> Tensor:
    """`table[rows]` for rows [B] int64 or a slice; on a tensor and rows about five times faster than indexing."""
    if isinstance(table, Tensor) and isinstance(rows, Tensor):
        return table.index_select(0, rows)
    return table[rows]


def move_table(table: Table, device: torch.device) -> Table:
    """Move a table: on a CPU the memory map itself, on a GPU a copy unless it exceeds TABLE_SHARE of free memory."""
    if isinstance(table, Tensor) and table.nbytes > TABLE_SHARE * free_memory(device):
        return HostTable(table, device)
    return table.to(device)


@dataclass(frozen=True, slots=True)
class FeatureSplit:
    """Pooled features of one split, memory-mapped, with the indices that relate images, captions and regions."""

    images: Table
    """[N, vision_dim] float32"""
    groups: Tensor
    """[N] int64, building of each image"""
    texts: Table
    """[T, text_dim] float32, one row a distinct text"""
    caption_text: Tensor
    """[M] int64, row of `texts`"""
    caption_image: Tensor
    """[M] int64, row of `images`"""
    sentence_text: Tensor
    """[R] int64, row of `texts`"""
    sentence_image: Tensor
    """[R] int64, row of `images`"""
    boxes: Tensor
    """[R, 4] float32, x1 y1 x2 y2 in 0..1"""
    relations: Tensor
    """[R] int64 in 0..5, to the first region of the same image; -1 where there is none"""
    first_region: Tensor
    """[R] int64, row of the first region of the same image, which relations refer to"""
    grid: Table | None = None
    """[N, P, grid_dim] float16, average-pooled patches in rows from the top left; None where the model has no use"""

    def to(self, device: torch.device) -> "FeatureSplit":
        """Move to a device: tables only if they fit its memory, everything else always."""
        tables = ("images", "texts", "grid")
        rest = {field.name: getattr(self, field.name).to(device) for field in fields(self) if field.name not in tables}
        return FeatureSplit(
            images=move_table(self.images, device),
            texts=move_table(self.texts, device),
            grid=None if self.grid is None else move_table(self.grid, device),
            **rest,
        )


@dataclass(frozen=True, slots=True)
class Widths:
    """Widths of the tables of features."""

    images: int
    texts: int
    grid: tuple[int, int] | None = None
    """Cells of the grid, and the width of one; None for features without a grid."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation of each dimension over the training split."""

    image_mean: Tensor
    """[vision_dim]"""
    image_std: Tensor
    text_mean: Tensor
    """[text_dim], over the distinct texts"""
    text_std: Tensor
    grid_mean: Tensor | None = None
    """[grid_dim], over all cells of all training images; None without a grid"""
    grid_std: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """Everything that a training run reads."""

    fingerprint: str
    train: FeatureSplit
    validation: FeatureSplit
    statistics: Statistics
    test: FeatureSplit | None = None
    """Only on request: for the final evaluation, never for search."""
    backbone_parameters: int = 0
    """Number of parameters of the frozen backbone; 0 if unknown."""
    backbone: str | None = None
    """Digest of the files of the frozen backbone; None if unknown."""

    @property
    def vision_dim(self) -> int:
        """Width of an image feature."""
        return self.train.images.shape[1]

    @property
    def text_dim(self) -> int:
        """Width of a text feature."""
        return self.train.texts.shape[1]

    @property
    def grid_dim(self) -> int | None:
        """Width of a cell; None without a grid."""
        return None if self.train.grid is None else self.train.grid.shape[2]


class FeatureStore:
    """One extracted set of features on disk, to which readings may be added."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        """Fingerprint and its parts, and counts per split."""

    @classmethod
    def exists(cls, root: Path, fingerprint: str, readings: Iterable[Reading] = ()) -> bool:
        """Whether there is such a store, and it holds these readings."""
        folder = root / fingerprint
        return all(
            (place / MANIFEST).exists() for place in (folder, *(reading_folder(folder, each) for each in readings))
        )

    @classmethod
    def open(cls, root: Path, fingerprint: str) -> "FeatureStore":
        """Open the store with this fingerprint below `root`.

        Raises:
            UserError: there is none, its manifest is damaged, or it says that it holds another fingerprint.
        """
        folder = root / fingerprint
        if not folder.exists():
            raise UserError(
                f"holds no features with fingerprint {fingerprint}", where=root, how="run crossmodal features extract"
            )
        return cls(folder, read_manifest(folder, fingerprint))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the features in it."""
        return str(self.manifest["fingerprint"])

    def missing(self, readings: Iterable[Reading]) -> list[Reading]:
        """Those of the readings that the store does not hold."""
        return [reading for reading in readings if not (reading_folder(self.folder, reading) / MANIFEST).exists()]

    def describe(self, reading: Reading) -> dict[str, Any]:
        """Manifest of one reading: shape, bytes, FLOPs of one input, health.

        Raises:
            UserError: the store does not hold it, or the manifest is damaged.
        """
        if self.missing([reading]):
            raise UserError(f"does not hold {reading.name}", where=self.folder, how="run crossmodal features extract")
        return read_manifest(reading_folder(self.folder, reading), reading_fingerprint(self.fingerprint, reading))

    def features(self, readings: Readings, *, allow_degenerate: bool = False, with_test: bool = False) -> Features:
        """Memory-map the features that a model reads.

        Raises:
            UserError: a reading is missing or gives many different inputs the same vector, there is no test split
                though it is asked for, or a file of the store is damaged.
        """
        opened = self._opened(readings)
        if not allow_degenerate:
            for reading in (*readings.images, *readings.texts):
                _refuse_degenerate(reading, opened[reading].manifest)
        if with_test and "test" not in self.manifest["counts"]:
            raise UserError("has no test split", where=self.folder, how="set data.test_annotations")
        images, texts = ([opened[each] for each in side] for side in (readings.images, readings.texts))
        grid = opened[readings.grid] if readings.grid else None
        return Features(
            fingerprint=self.fingerprint,
            train=self._split("train", readings, opened),
            validation=self._split("validation", readings, opened),
            statistics=Statistics(*_joined(images), *_joined(texts), *(_joined([grid]) if grid else ())),
            test=self._split("test", readings, opened) if with_test else None,
            backbone_parameters=_parameters(opened),
            backbone=self.manifest["parts"]["backbone"],
        )

    def split(self, name: Split, readings: Readings) -> FeatureSplit:
        """Memory-map one split.

        Raises:
            UserError: a reading is missing, or a file of the store is damaged.
        """
        return self._split(name, readings, self._opened(readings))

    def backbone_parameters(self, readings: Readings) -> int:
        """Number of parameters of the frozen backbone."""
        return _parameters(self._opened(readings))

    def _split(self, name: Split, readings: Readings, opened: "Mapping[Reading, _OpenedReading]") -> FeatureSplit:
        return FeatureSplit(
            images=join_tables([opened[each].table(name) for each in readings.images]),
            texts=join_tables([opened[each].table(name) for each in readings.texts]),
            grid=opened[readings.grid].table(name) if readings.grid else None,
            **load_file(checked_file(self.folder, self.manifest, f"{name}/index.safetensors")),
        )

    def _opened(self, readings: Readings) -> "dict[Reading, _OpenedReading]":
        return {
            reading: _OpenedReading(reading_folder(self.folder, reading), self.describe(reading))
            for reading in readings.all
        }


class _OpenedReading:
    """Files of one reading, each checked against its manifest before it is read."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self._folder = folder
        self.manifest = manifest

    def table(self, split: Split) -> Tensor:
        path = checked_file(self._folder, self.manifest, f"{split}.npy")
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))

    def statistics(self) -> dict[str, Tensor]:
        stored: dict[str, Tensor] = load_file(checked_file(self._folder, self.manifest, STATISTICS))
        return stored


def _parameters(opened: Mapping[Reading, _OpenedReading]) -> int:
    """Number of parameters of the backbone that the readings are of."""
    return max(int(each.manifest["backbone_parameters"]) for each in opened.values())


def _joined(readings: Sequence[_OpenedReading]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of concatenated readings."""
    stored = [reading.statistics() for reading in readings]
    return torch.cat([each["mean"] for each in stored]), torch.cat([each["std"] for each in stored])


def _refuse_degenerate(reading: Reading, manifest: Mapping[str, Any]) -> None:
    distinct = manifest["health"]["distinct"]
    if distinct < MIN_DISTINCT:
        reason = (
            ", since the first token sees nothing of the text that follows"
            if (reading.place, reading.pooling) == ("lm", "first")
            else ""
        )
        raise UserError(
            f"{reading.name} gives only {distinct:.1%} of the different {reading.kind} a vector of their own{reason}",
            where=f"features.{reading.kind.removesuffix('s')}",
            how="choose another reading, or set features.allow_degenerate: true",
        )
