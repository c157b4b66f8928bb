"""Attention of queries over the cells of an image's grid, on the cells as the store holds them.

Cells are normalised without a normalised grid ever existing: what normalisation does to a cell is moved to the queries
before the attention, and to what was attended after it. `tests/core/model/test_attention.py` compares with a textbook
implementation that normalises every cell.
"""

import math

import torch
from torch import Tensor, nn

from core.config import Normalization
from core.model.layers import FeatureNorm

FREQUENCIES = 4
"""Waves of 1 to 4 halves over a side of the image: a grid of 8 × 8 cells shows each of them undistorted."""
POSITION = 2 + 4 * FREQUENCIES
"""Numbers that tell a cell's position: x, y, and a sine and a cosine of both at each frequency."""
LAYER_NORM_EPS = 1e-5
"""That of `functional.layer_norm`."""


class GridAttention(nn.Module):
    """Dot-product attention over P cells whose values are the normalised cells themselves; has no parameters.

    Source: Vaswani et al. 2017 (1706.03762) §3.2.1, without projections of keys and values, which the queries and
    what reads the result take in (their products are single matrices).
    """

    positions: Tensor
    """[P, POSITION], each column standardised over the cells"""
    centres: Tensor
    """[P, 2], x and y in 0..1"""

    def __init__(self, cells: int, width: int, kind: Normalization) -> None:
        super().__init__()
        self.norm = FeatureNorm(width, kind)
        centres = cell_centres(cells)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("positions", position_code(centres), persistent=False)

    def forward(self, grid: Tensor, queries: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and weighted sums of the normalised cells.

        Args:
            grid: [N, P, width], in any precision.
            queries: [N, Q, width], or [Q, width] for all images alike.
            bias: [N, Q, P] or [Q, P], added to the logits: what the queries think of positions.
        Returns:
            [N, Q, P], each row of sum 1; [N, Q, width].
        """
        grid = grid.to(queries.dtype)
        logits = torch.matmul(self._folded(queries) / math.sqrt(queries.shape[-1]), grid.mT)
        if self.norm.kind == "layernorm":
            scale = torch.rsqrt(grid.var(dim=2, correction=0) + LAYER_NORM_EPS)[:, None]  # [N, 1, P]
            weights = (logits * scale + bias).softmax(dim=2)
            return weights, self._unfolded((weights * scale) @ grid)
        weights = (logits + bias).softmax(dim=2)
        return weights, self._unfolded(weights @ grid)

    def location(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the cells' centres: [N, Q, P] → [N, Q, 2] in 0..1, [N, Q, 2]."""
        mean, square = (weights @ torch.cat([self.centres, self.centres.square()], dim=1)).chunk(2, dim=2)
        return mean, (square - mean.square()).clamp(min=1e-6).sqrt()  # the root has no slope at 0

    def _folded(self, queries: Tensor) -> Tensor:
        """Queries whose product with a raw cell is theirs with the normalised one, up to its scale and a constant."""
        match self.norm.kind:
            case "none":
                return queries
            case "standardize":
                return queries / self.norm.std  # the mean adds the same to all cells, which a softmax does not see
            case "layernorm":
                return queries - queries.mean(dim=-1, keepdim=True)  # takes a cell's mean off

    def _unfolded(self, attended: Tensor) -> Tensor:
        """The weighted sum of normalised cells from that of raw ones; weights add up to 1."""
        match self.norm.kind:
            case "layernorm":
                return attended - attended.mean(dim=-1, keepdim=True)
            case _:
                normalised: Tensor = self.norm(attended)
                return normalised


def cell_centres(cells: int) -> Tensor:
    """x and y of the cells of a square grid, in rows from the top left: [P, 2] in 0..1."""
    side = math.isqrt(cells)
    assert side * side == cells, "a grid has as many rows as columns"
    along = (torch.arange(side) + 0.5) / side
    return torch.stack([along.repeat(side), along.repeat_interleave(side)], dim=1)


def position_code(centres: Tensor) -> Tensor:
    """[P, 2] → [P, POSITION]: x, y, and their sines and cosines, each standardised over the cells.

    A column that does not vary, as in a grid of one cell, is 0.
    Source: Vaswani et al. 2017 (1706.03762) §3.5, with the frequencies of a discrete cosine transform.
    """
    angles = math.pi * centres[:, :, None] * torch.arange(1, FREQUENCIES + 1)  # [P, 2, FREQUENCIES]
    code = torch.cat([centres, angles.sin().flatten(1), angles.cos().flatten(1)], dim=1)
    centred = code - code.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return torch.where(deviation > 1e-3, centred / deviation.clamp(min=1e-3), 0.0)
