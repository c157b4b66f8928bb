"""Inputs of the heads: embeddings of images and texts and, for attention, grids and text features."""

from typing import NamedTuple

from torch import Tensor

from core.features.store import Table, gather
from core.model.layers import embedded_rows


class ImageView(NamedTuple):
    """Images, as input of the heads."""

    embedded: Tensor
    """[B, D], unit norm"""
    grid: Table | None = None
    """[B, P, grid_dim] as stored; None for heads that use only embeddings"""

    def rows(self, index: Tensor | slice) -> "ImageView":
        """The images at these positions."""
        return ImageView(_embedded_rows(self.embedded, index), None if self.grid is None else gather(self.grid, index))


class TextView(NamedTuple):
    """Texts, as input of the heads."""

    embedded: Tensor
    """[B, D], unit norm"""
    features: Table | None = None
    """[B, text_dim] as stored; None for heads that use only embeddings"""

    def rows(self, index: Tensor | slice) -> "TextView":
        """The texts at these positions."""
        return TextView(
            _embedded_rows(self.embedded, index), None if self.features is None else gather(self.features, index)
        )


def _embedded_rows(embedded: Tensor, index: Tensor | slice) -> Tensor:
    return embedded[index] if isinstance(index, slice) else embedded_rows(embedded, index)


def whole(table: Table | None) -> Tensor:
    """All rows of a table, which must exist."""
    assert table is not None, "heads with attention need grids and text features"
    return table if isinstance(table, Tensor) else table[:]
