"""What the heads see of images and texts: their embeddings, and for heads that look at the image also its grid."""

from typing import NamedTuple

from torch import Tensor

from core.features.store import Table, gather
from core.model.layers import embedded_rows


class ImageView(NamedTuple):
    """Images as the heads see them."""

    embedded: Tensor
    """[B, D], unit norm"""
    grid: Table | None = None
    """[B, P, grid_dim] as the store holds it; None for heads that see embeddings alone"""

    def rows(self, index: Tensor | slice) -> "ImageView":
        """The images at these positions."""
        return ImageView(_embedded_rows(self.embedded, index), None if self.grid is None else _rows(self.grid, index))


class TextView(NamedTuple):
    """Texts as the heads see them."""

    embedded: Tensor
    """[B, D], unit norm"""
    features: Table | None = None
    """[B, text_dim] as the store holds them; None for heads that see embeddings alone"""

    def rows(self, index: Tensor | slice) -> "TextView":
        """The texts at these positions."""
        return TextView(
            _embedded_rows(self.embedded, index), None if self.features is None else _rows(self.features, index)
        )


def _embedded_rows(embedded: Tensor, index: Tensor | slice) -> Tensor:
    return embedded[index] if isinstance(index, slice) else embedded_rows(embedded, index)


def whole(table: Table | None) -> Tensor:
    """All rows of a table that a head cannot do without."""
    assert table is not None, "these heads see more than embeddings"
    return table if isinstance(table, Tensor) else table[:]


def _rows(table: Table, index: Tensor | slice) -> Tensor:
    return table[index] if isinstance(index, slice) else gather(table, index)
