"""Layers of the model that PyTorch does not provide."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.config import Normalization


class FeatureNorm(nn.Module):
    """Normalisation of features of the backbone before trainable layers; without trainable parameters."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, kind: Normalization) -> None:
        """Until `use_statistics` is called, 'standardize' leaves features unchanged.

        Args:
            width: dimensions of a feature.
        """
        super().__init__()
        self.width = width
        self.kind = kind
        if kind == "standardize":
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("std", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise features: [..., width] → [..., width]."""
        match self.kind:
            case "none":
                return features
            case "standardize":
                return (features - self.mean).div_(self.std)
            case "layernorm":
                return functional.layer_norm(features, features.shape[-1:])

    def use_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics used by 'standardize'; a dimension that hardly varies is centred but not scaled.

        Args:
            mean, std: [width], of the training split.
        """
        if self.kind == "standardize":
            floor = 1e-4 * float(std.max())
            self.mean.copy_(mean)
            self.std.copy_(torch.where(std > floor, std, torch.ones_like(std)))


def interaction(image: Tensor, text: Tensor) -> Tensor:
    """Fuse pairs of unit vectors: [B, D], [B, D] → [B, 4 D], which is v, t, v⊙t and |v − t|.

    The vectors are first scaled to norm √D: entries of unit vectors are about 1/√D, so that their products would be
    negligible compared with them.

    Source: InferSent (1705.02364) §3.1, without the scaling.
    """
    scale = math.sqrt(image.shape[1])
    image, text = image * scale, text * scale
    return torch.cat([image, text, image * text, (image - text).abs()], dim=1)


def embedded_rows(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` for a table [N, D]; unlike with indexing, gradients accumulate in a fixed order."""
    return functional.embedding(index, table)
