"""Learned pooling of an image's grid: a reading of the image that is trained along with the adapters."""

import torch
from torch import Tensor, nn

from core.model.attention import POSITION, GridAttention

QUERIES = 4
"""Learned queries, each of which attends to all cells."""
VALUE_WIDTH = 64
"""Of what a query adds to the image's features."""


class GridPooling(nn.Module):
    """Learned queries over the grid of an image, each with logits of its own over positions.

    Source: attention pooling as in Set Transformer (1810.00825) §3.2, one head, without the residual network.
    """

    def __init__(self, attention: GridAttention) -> None:
        super().__init__()
        grid_dim = attention.norm.width
        self.attention = attention
        self.queries = nn.Parameter(torch.randn(QUERIES, grid_dim))
        self.places = nn.Parameter(torch.zeros(QUERIES, POSITION))
        self.value = nn.Linear(grid_dim, VALUE_WIDTH)

    @property
    def width(self) -> int:
        """Of what it returns for an image."""
        return QUERIES * VALUE_WIDTH

    def forward(self, grid: Tensor) -> Tensor:
        """[N, P, grid_dim] as the store holds it → [N, QUERIES VALUE_WIDTH]."""
        _, attended = self.attention(grid, self.queries, self.places @ self.attention.positions.T)
        values: Tensor = self.value(attended)  # [N, QUERIES, VALUE_WIDTH]
        return values.flatten(1)
