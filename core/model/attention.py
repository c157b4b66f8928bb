"""Attention of queries over the cells of an image's grid, which is read as stored.

No normalised copy of the grid is made: the normalisation of the cells is applied to the queries before the attention
and to its result afterwards. tests/core/model/test_attention.py compares this with normalising every cell.
"""

import math

import torch
from torch import Tensor, nn

from core.config import Normalization
from core.model.layers import FeatureNorm

FREQUENCIES = 4
"""Number of frequencies of the position code: k = 1 to 4 half waves per side of the image."""
POSITION = 2 + 4 * FREQUENCIES
"""Width of the position code: x, y, and a sine and a cosine of both at each frequency."""
LAYER_NORM_EPS = 1e-5
"""Default of `functional.layer_norm`."""


class GridAttention(nn.Module):
    """Dot-product attention over P cells, with the normalised cells as keys and values; without trainable parameters.

    Each kind of normalisation is applied exactly, without a normalised copy of the grid:

    - none: cells are used unchanged.
    - standardize: the queries are divided by the standard deviation; the mean adds a constant to all logits of a query,
      to which a softmax is invariant, and is subtracted from the result, since weights sum to 1.
    - layernorm (each cell over its dimensions, without affine parameters): the mean of a query over its dimensions is
      subtracted, which removes the mean of each cell from its logit; logits and weights are divided by the standard
      deviation of the cell; the mean of the result over its dimensions is subtracted.

    Source: Vaswani et al. 2017 (1706.03762) §3.2.1. Projections of keys and values are linear, so callers include them
    in the projections of queries and outputs.
    """

    positions: Tensor
    """[P, POSITION], see `position_code`"""
    centres: Tensor
    """[P, 2], see `cell_centres`"""

    def __init__(self, cells: int, width: int, kind: Normalization) -> None:
        """Until `norm.use_statistics` is called, 'standardize' leaves cells unchanged.

        Args:
            cells: P, a square number.
            width: dimensions of a cell.
        """
        super().__init__()
        self.norm = FeatureNorm(width, kind)
        centres = cell_centres(cells)
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("positions", position_code(centres), persistent=False)

    def forward(self, grid: Tensor, queries: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attention weights, and the weighted sums of the normalised cells.

        Args:
            grid: [N, P, width], of any floating-point type; not normalised.
            queries: [N, Q, width], or [Q, width] for the same queries in all images.
            bias: [N, Q, P] or [Q, P], added to the logits.
        Returns:
            Weights [N, Q, P], which sum to 1 over the cells; sums [N, Q, width].
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
        """Weighted mean and standard deviation of x and y of the cells: [N, Q, P] → [N, Q, 2] in 0..1, [N, Q, 2]."""
        mean, square = (weights @ torch.cat([self.centres, self.centres.square()], dim=1)).chunk(2, dim=2)
        return mean, (square - mean.square()).clamp(min=1e-6).sqrt()  # the gradient at 0 is infinite

    def _folded(self, queries: Tensor) -> Tensor:
        """The queries, with the part of the normalisation that applies before the attention."""
        match self.norm.kind:
            case "none":
                return queries
            case "standardize":
                return queries / self.norm.std
            case "layernorm":
                return queries - queries.mean(dim=-1, keepdim=True)

    def _unfolded(self, attended: Tensor) -> Tensor:
        """The sums, with the part of the normalisation that applies after the attention."""
        match self.norm.kind:
            case "layernorm":
                return attended - attended.mean(dim=-1, keepdim=True)
            case _:
                normalised: Tensor = self.norm(attended)
                return normalised


def cell_centres(cells: int) -> Tensor:
    """Centres of the cells of a square grid, in rows from the top left: [P, 2], x and y in 0..1."""
    side = math.isqrt(cells)
    assert side * side == cells, "a grid has as many rows as columns"
    along = (torch.arange(side) + 0.5) / side
    return torch.stack([along.repeat(side), along.repeat_interleave(side)], dim=1)


def position_code(centres: Tensor) -> Tensor:
    """x, y, and their sines and cosines, each standardised over the cells: [P, 2] → [P, POSITION].

    A column that does not vary over the cells, as in a small grid, is 0.
    Source: Vaswani et al. 2017 (1706.03762) §3.5, with the frequencies of a discrete cosine transform.
    """
    angles = math.pi * centres[:, :, None] * torch.arange(1, FREQUENCIES + 1)  # [P, 2, FREQUENCIES]
    code = torch.cat([centres, angles.sin().flatten(1), angles.cos().flatten(1)], dim=1)
    centred = code - code.mean(dim=0)
    deviation = centred.square().mean(dim=0).sqrt()
    return torch.where(deviation > 1e-3, centred / deviation.clamp(min=1e-3), 0.0)
