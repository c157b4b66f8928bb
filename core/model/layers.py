"""What the model is made of beside plain linear layers, each with the cheapest pass over memory that does it."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.config import Normalization

LEAST_NORM = 1e-12
"""Below it a vector is not stretched to unit norm."""
CODES = 2**16
"""Values of sixteen random bits."""


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
        if hidden.device.type != "cpu":
            return functional.dropout(hidden, self.probability)
        dropped = min(round(self.probability * CODES), CODES - 1)
        kept = torch.empty_like(hidden)
        torch.ge(_random_codes(hidden), dropped - CODES // 2, out=kept)
        return hidden * kept.mul_(CODES / (CODES - dropped))


def _random_codes(like: Tensor) -> Tensor:
    """int16 uniform over its whole range, four from each 64-bit number of the global generator."""
    numbers = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return numbers.view(torch.int16)[: like.numel()].view(like.shape)


def unit_norm(rows: Tensor) -> Tensor:
    """[B, D] → [B, D], each row over its Euclidean norm; one of 0 stays 0."""
    normed: Tensor = _UnitNorm.apply(rows)  # type: ignore[no-untyped-call]
    return normed


class _UnitNorm(torch.autograd.Function):
    """`functional.normalize` with its gradient in closed form: a third of the passes over memory."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min_(LEAST_NORM).reciprocal_()
        normed = rows.mul(scale)
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        normed, scale = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, normed).unsqueeze(-1)
        return torch.addcmul(gradient, normed, along, value=-1).mul_(scale)


def interaction(image: Tensor, text: Tensor) -> Tensor:
    """Unit vectors [B, D], [B, D] → [B, 4 D]: v, t, v⊙t and |v − t|, of vectors stretched to a norm of √D.

    Unit vectors have entries of 1/√D, and products of those would vanish beside them.
    """
    mixed: Tensor = _Interaction.apply(image, text)  # type: ignore[no-untyped-call]
    return mixed


class _Interaction(torch.autograd.Function):
    """Each part is written where it belongs, and the backward pass needs nothing but the result."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor) -> Tensor:
        stretch = math.sqrt(image.shape[1])
        mixed = torch.cat([image, text, image, image], dim=1).mul_(stretch)
        _, stretched, product, distance = mixed.chunk(4, dim=1)
        product *= stretched
        distance.sub_(stretched).abs_()
        ctx.save_for_backward(mixed)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (mixed,) = ctx.saved_tensors
        image, text, _, _ = mixed.chunk(4, dim=1)
        of_image, of_text, of_product, of_distance = gradient.chunk(4, dim=1)
        apart = (image - text).sgn_().mul_(of_distance)
        stretch = math.sqrt(image.shape[1])
        to_image = torch.addcmul(of_image, of_product, text).add_(apart).mul_(stretch)
        to_text = torch.addcmul(of_text, of_product, image).sub_(apart).mul_(stretch)
        return to_image, to_text


def read_interaction(image: Tensor, text: Tensor, weight: Tensor) -> Tensor:
    """`interaction(image, text) @ weight`, part by part, so that it never exists: [B, D], [B, D], [4 D] → [B]."""
    stretch = math.sqrt(image.shape[1])
    of_image, of_text, of_product, of_distance = weight.chunk(4)
    product = stretch * ((image * text) @ of_product)
    return stretch * (image @ of_image + text @ of_text + product + (image - text).abs() @ of_distance)
