"""Learned attention pooling of an image's grid, trained together with the adapters."""

import torch
from torch import Tensor, nn

from core.model.attention import POSITION, GridAttention

QUERIES = 4
"""Number of learned queries."""
VALUE_WIDTH = 64
"""Width that each query adds to the image features."""


class GridPooling(nn.Module):
    """Learned queries that attend to the cells of a grid, by content and by position.

    Source: pooling by attention as in Set Transformer (1810.00825) §3.2, with one head and without feed-forward layers.
    """

    def __init__(self, attention: GridAttention) -> None:
        super().__init__()
        grid_dim = attention.norm.width
        self.attention = attention
        self.queries = nn.Parameter(torch.randn(QUERIES, grid_dim))
        self.positions = nn.Parameter(torch.zeros(QUERIES, POSITION))
        self.value = nn.Linear(grid_dim, VALUE_WIDTH)

    @property
    def width(self) -> int:
        """Output width."""
        return QUERIES * VALUE_WIDTH

    def forward(self, grid: Tensor) -> Tensor:
        """Pool grids as stored: [N, P, grid_dim] → [N, QUERIES × VALUE_WIDTH]."""
        _, attended = self.attention(grid, self.queries, self.positions @ self.attention.positions.T)
        values: Tensor = self.value(attended)  # [N, QUERIES, VALUE_WIDTH]
        return values.flatten(1)
