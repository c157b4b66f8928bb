"""What the model is made of beside plain linear layers, each with the cheapest pass over memory that does it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.config import Normalization
from core.model.kernels import dropout


class FeatureNorm(nn.Module):
    """What happens to pooled features before the adapters; has no parameters."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, kind: Normalization) -> None:
        super().__init__()
        self.kind = kind
        if kind == "standardize":
            self.register_buffer("mean", torch.zeros(width))
            self.register_buffer("std", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """[B, width] → [B, width]."""
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


class Dropout(nn.Module):
    """Dropout; on the CPU sixteen random bits decide an entry, so the probability is rounded to 1/65,536.

    There `nn.Dropout` draws a float for each entry, which costs more than the matrix product before it.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, width] → [B, width], the entries that are kept scaled up so that the mean stays."""
        if not self.training or self.probability == 0:
            return hidden
        return dropout(hidden, self.probability)
