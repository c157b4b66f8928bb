"""What the model is made of beside PyTorch's own layers."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.config import Normalization


class FeatureNorm(nn.Module):
    """What happens to features of the backbone before trainable layers; has no parameters."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, kind: Normalization) -> None:
        super().__init__()
        self.width = width
        self.kind = kind
        if kind == "standardize":
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("std", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        match self.kind:
            case "none":
                return features
            case "standardize":
                return (features - self.mean).div_(self.std)
            case "layernorm":
                return functional.layer_norm(features, features.shape[-1:])

    def use_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Standardise by the training split; a dimension that never varies is only centred."""
        if self.kind == "standardize":
            floor = 1e-4 * float(std.max())
            self.mean.copy_(mean)
            self.std.copy_(torch.where(std > floor, std, torch.ones_like(std)))


def interaction(image: Tensor, text: Tensor) -> Tensor:
    """Unit vectors [B, D], [B, D] → [B, 4 D]: v, t, v⊙t and |v − t|, of vectors stretched to a norm of √D.

    Unit vectors have entries of 1/√D, and products of those would vanish beside them.
    """
    stretch = math.sqrt(image.shape[1])
    image, text = image * stretch, text * stretch
    return torch.cat([image, text, image * text, (image - text).abs()], dim=1)


def embedded_rows(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]` of [N, D]; its gradient, unlike that of plain indexing, adds up in a fixed order."""
    return functional.embedding(index, table)
