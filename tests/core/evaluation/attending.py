"""A model whose heads see grids and raw texts, and tables that tell how they are read."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from core.config import ModelConfig
from core.features.store import FeatureSplit, Table, Widths, gather
from core.model.model import CrossModalModel
from core.model.views import ImageView, TextView

CELLS, WIDTH = 4, 20
"""Of a grid; its cells are as wide as the texts of `planted_split`."""


class Attending(CrossModalModel):
    """Matches and grounds by the products of a text with the cells of a grid."""

    def __init__(self) -> None:
        super().__init__(Widths(16, 20), ModelConfig(adapter_width=4, embed_dim=4, dropout=0.0, fusion="concat"))
        self.fusion = "attention"

    def match_odds(self, images: ImageView, texts: TextView) -> Tensor:
        return products(images, texts).amax(dim=1)

    def ground(self, images: ImageView, texts: TextView, references: TextView) -> tuple[Tensor, Tensor]:
        corner, other = products(images, texts).sigmoid(), products(images, references)
        logits = torch.cat([corner, other], dim=1)[:, :6]
        return torch.cat([corner[:, :2] / 2, 0.5 + corner[:, 2:] / 2], dim=1), logits


def products(images: ImageView, texts: TextView) -> Tensor:
    """B images, T texts of each → [B × T, cells]"""
    assert isinstance(images.grid, Tensor), "rows are gathered before the heads see them"
    assert isinstance(texts.features, Tensor)
    of_images = texts.features.view(len(images.grid), -1, texts.features.shape[1])  # [B, T, width]
    return (of_images @ images.grid.float().mT).flatten(0, 1)


class Watched:
    """A table that remembers how many rows were read, and how many at once, at most."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self.shape: Sequence[int] = rows.shape
        self.most = self.read = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        wanted = gather(self._rows, rows)
        self.most = max(self.most, len(wanted))
        self.read += len(wanted)
        return wanted

    def to(self, device: torch.device, /) -> Table:
        return self


def with_grid(split: FeatureSplit) -> tuple[FeatureSplit, Watched]:
    """A split with a random grid that is watched."""
    grid = torch.randn(len(split.images), CELLS, WIDTH, generator=torch.Generator().manual_seed(5)).half()
    watched = Watched(grid)
    return dataclasses.replace(split, grid=watched), watched
