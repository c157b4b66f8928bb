"""What the heads see of images and texts: their embeddings, and for heads that look at the image also its grid."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from core.features.store import Table, gather


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
    # The gradient of an embedding, unlike that of plain indexing, adds up in a fixed order.
    return embedded[index] if isinstance(index, slice) else functional.embedding(index, embedded)


def _rows(table: Table, index: Tensor | slice) -> Tensor:
    return table[index] if isinstance(index, slice) else gather(table, index)
